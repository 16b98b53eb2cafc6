"""What the command line decides reaches whoever loads models."""

from __future__ import annotations

from pathlib import Path

from serving.loading.order import ServerDefaults
from serving.settings import Settings


def test_where_models_are_served_unless_their_configuration_says_so() -> None:
    said = {
        "backend": "torchscript",
        "device": "cuda:1",
        "threads": 3,
        "allow_tf32": True,
        "require_verified": True,
        "row_watch": 0.5,
        "optimize_for": "throughput",
        "fallback": "always",
        "trial": "off",
    }
    assert Settings(model_repository=[Path()], **said).defaults == ServerDefaults(**said)  # type: ignore[arg-type]
    assert set(vars(ServerDefaults())) == set(said), "a decision that has no flag"


def test_they_have_the_same_defaults() -> None:
    assert Settings(model_repository=[Path()]).defaults == ServerDefaults()
