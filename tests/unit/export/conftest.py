"""A trained network as small as it can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.checkpoint import Checkpoint
from models.config import LSTMConfig
from tests.support import artefacts

LABELS = ("north", "east", "south", "west")


@pytest.fixture
def checkpoint() -> Checkpoint:
    """A classifier of four classes, trained in PyTorch as far as an export can tell."""
    return trained(artefacts.FEATURES, labels=LABELS)


@pytest.fixture
def run(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """The run folder of `checkpoint`."""
    checkpoint.save(tmp_path / "run")
    return tmp_path / "run"


def trained(config: LSTMConfig, labels: tuple[str, ...] = (), framework: str = "torch") -> Checkpoint:
    """A checkpoint with a few samples of different lengths."""
    generator = np.random.default_rng(3)
    samples = tuple(
        generator.integers(0, config.vocabulary, steps)
        if config.input == "tokens"
        else generator.normal(size=(steps, config.features)).astype(np.float32)
        for steps in (3, 7, 5)
    )
    return Checkpoint(
        config=config,
        weights=artefacts.weights(config),
        framework=framework,
        labels=labels,
        samples=samples,
        training={"seed": 3, "versions": {"torch": "2.13.0"}, "data": {"name": "made up"}, "scores": {"accuracy": 0.9}},
    )
