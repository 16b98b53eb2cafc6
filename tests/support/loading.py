"""What the loader is asked for, with a fake model and the words of a `config.pbtxt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.loading.order import ServerDefaults
from serving.loading.request import LoadRequest
from serving.repository import model_config
from serving.repository.folders import Repository
from serving.telemetry.counters import ModelMetrics


def wanted(root: Path, text: str = "", **wishes: Any) -> LoadRequest:
    repository = Repository(root)
    return LoadRequest(
        name="fake",
        folder=repository.versions("fake")[-1],
        config=model_config.parse(text or None, "fake"),
        labels=(),
        defaults=ServerDefaults(**{"backend": "fake"} | wishes),
        metrics=lambda backend: ModelMetrics(),
        repository=repository,
    )
