"""What the CUDA tests share. They are no part of the normal suite: `sh tests/gpu/run.sh` runs them, on a machine with a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.config import LSTMConfig
from serving import backends
from serving.errors import BackendUnavailable
from serving.verification import golden
from tests import oracle
from tests.contract import artefacts

DEVICE = "cuda:0"


def write_version(repository: Path, name: str, config: LSTMConfig, chosen: tuple[str, ...]) -> None:
    """One whole version with the artefacts of these backends, its golden samples being the oracle's answers."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    weights = artefacts.weights(config)
    for backend in chosen:
        artefacts.make(backend, config, weights, folder)
    (folder / "spec.json").write_text(artefacts.spec(config, weights).to_json())
    inputs = artefacts.batch(config, 3, 12)
    outputs = {key: array.astype(np.float32) for key, array in oracle.predict(config, weights, inputs).items()}
    golden.write_samples(folder / golden.FILE_NAME, [golden.Sample(inputs, outputs)])


@pytest.fixture(params=backends.PREFERENCE)
def name(request: pytest.FixtureRequest) -> str:
    """A backend that can use the GPU here; the others are skipped with their own sentence."""
    backend = str(request.param)
    try:
        backends.module(backend).available(DEVICE)
    except BackendUnavailable as error:
        pytest.skip(f"{backend}: {error}")
    return backend
