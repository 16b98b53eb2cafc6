"""The fake model by way of the loader: what is asked for, what is loaded, what serves, and requests to it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from serving.batching.pending import Pending
from serving.lifecycle.manager import ModelManager
from serving.loading import loader
from serving.loading.order import ServerDefaults
from serving.loading.request import Loaded, LoadRequest
from serving.repository import model_config
from serving.repository.folders import Repository
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import Timeline, now_ns
from tests.support import fake_models
from tests.support.gated import Answer

UNREAD = b"a network"


def wanted(root: Path, text: str = "", **wishes: Any) -> LoadRequest:
    """The highest version, with the words of a `config.pbtxt`; `wishes` are the server's."""
    repository = Repository(root)
    return LoadRequest(
        name="fake",
        folder=repository.versions("fake")[-1],
        config=model_config.parse(text or None, "fake"),
        labels={},
        defaults=ServerDefaults(**{"backend": "fake"} | wishes),
        metrics=lambda backend: ModelMetrics(),
        repository=repository,
    )


def request_of(root: Path, name: str) -> LoadRequest:
    """The highest version of a model, with no configuration and a server's usual wishes."""
    repository = Repository(root)
    return LoadRequest(
        name=name,
        folder=repository.versions(name)[-1],
        config=model_config.parse(None, name),
        labels={},
        defaults=ServerDefaults(),
        metrics=lambda backend: ModelMetrics(),
        repository=repository,
    )


def unread(root: Path) -> LoadRequest:
    """A bare file, the model `bare`, for tests in which nothing reads it."""
    (folder := root / "bare" / "1").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(UNREAD)
    return request_of(root, "bare")


def unread_and_described(root: Path, **source: object) -> LoadRequest:
    """The same with golden samples and a specification, the model `described`, which says this of where it comes from."""
    path = fake_models.write(root, "described")
    (path / "model.onnx").write_bytes(UNREAD)
    text = json.loads((path / "spec.json").read_text())
    (path / "spec.json").write_text(json.dumps(text | {"source": source}))
    return request_of(root, "described")


def loaded(root: Path, version: int = 1, **changes: Any) -> Loaded:
    """One version, written before if it is not there; `changes` are to the request."""
    if not (root / "fake" / str(version)).exists():
        fake_models.write(root, version=version)
    repository = Repository(root)
    (folder,) = (one for one in repository.versions("fake") if one.number == version)
    return loader.load(dataclasses.replace(wanted(root), **{"folder": folder, "repository": repository} | changes))


def serve(manager: ModelManager, one: Loaded, identity: object = "its files") -> None:
    """Lets it answer for its version, as the control of the repository does."""
    with manager.loading("fake") as entry:
        manager.announce(entry, one.model.version, identity)
        manager.install(entry, one, "requested", identity)


def asked(value: float = 1.0, steps: int = 2) -> Answer:
    """A request of one row to the fake model, which answers with the sum."""
    answer = Answer(value)
    state = np.zeros((1, *fake_models.STATE[1:]), np.float32)
    inputs = {
        "x": np.full((1, steps, fake_models.FEATURES), value, np.float32),
        "lengths": np.array([steps]),
        "h0": state,
        "c0": state,
    }
    timeline = Timeline(now_ns())
    timeline.decoded = timeline.received
    answer.pending = Pending(answer, inputs, 1, steps, ["y"], (b"",), timeline)
    return answer
