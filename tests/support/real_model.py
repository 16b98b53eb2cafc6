"""A small LSTM as an exporter would publish it, its golden samples being what the equations say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.config import LSTMConfig
from serving import backends
from serving.backends.base import artifact_digest
from serving.signature.spec import OWN_FILES
from serving.verification import golden
from tests.support import artefacts, oracle


def write(
    repository: Path,
    formats: Sequence[str] = backends.PREFERENCE,
    *,
    name: str = "real",
    config: LSTMConfig = artefacts.FEATURES,
) -> tuple[Path, dict[str, Any], np.ndarray[Any, Any]]:
    """One version with what these backends read; its folder, the rows of a batch, and what the equations say about them."""
    weights = artefacts.weights(config)
    version = repository / name / "1"
    version.mkdir(parents=True)
    for backend in formats:
        artefacts.make(backend, config, weights, version)
    files = [version / backends.module(backend).FILE_NAME for backend in formats]
    own = {file.name: artifact_digest(file) for file in files}
    spec = dataclasses.replace(artefacts.spec(config, weights), source={"export": {OWN_FILES: own}})
    (version / "spec.json").write_text(spec.to_json())
    inputs = artefacts.batch(config, 6, 9)
    outputs = {key: array.astype(np.float32) for key, array in oracle.predict(config, weights, inputs).items()}
    golden.write_samples(version / golden.FILE_NAME, [golden.Sample(inputs, outputs)])
    return version, inputs, outputs["y"]
