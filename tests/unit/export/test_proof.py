"""A file is held to the trained model's answers, whole and in pieces; here the file is the fake backend's, which sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export import canonical, proof, trials
from models.checkpoint import Weights
from models.config import LSTMConfig
from models.inputs import Arrays
from serving.errors import VerificationFailed
from serving.signature.spec import ModelSpec
from tests.unit.export.conftest import trained

VALUES = LSTMConfig(features=2, hidden=3, head="values", outputs=1)
PER_STEP = LSTMConfig(features=2, hidden=3, head="values_per_step", outputs=1)


class Sums:
    """The network that the fake backend is: everything it says of a row is the sum of its true steps and of its state."""

    def __init__(self, config: LSTMConfig, error: float = 0.0) -> None:
        self.config = config
        self._error = error

    def predict(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        x, lengths, h0 = inputs["x"], inputs["lengths"], inputs["h0"]
        sums = [row[:length].sum(dtype=np.float64) + h[0, 0] for row, length, h in zip(x, lengths, h0, strict=True)]
        column = np.array(sums, np.float32)
        state = np.broadcast_to(column[:, None, None], h0.shape)
        per_step = self.config.head == "values_per_step"
        y = np.repeat(column[:, None, None], x.shape[1], axis=1) if per_step else column[:, None]
        return {"y": y + np.float32(self._error), "hn": state, "cn": state}

    def canonical_weights(self) -> dict[str, npt.NDArray[np.float32]]:
        raise NotImplementedError

    def load_canonical(self, weights: Weights) -> None:
        raise NotImplementedError


def spec(config: LSTMConfig, *, streamable: bool) -> ModelSpec:
    return ModelSpec(
        inputs=canonical.inputs(config),
        outputs=canonical.outputs(config),
        lengths=canonical.LENGTHS,
        state=canonical.STATE,
        streamable=streamable,
        tolerance=1e-5,
        weights_sha256="",
    )


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    (tmp_path / "model.fake.json").write_text("{}")
    return tmp_path / "model.fake.json"


def proven(network: Sums) -> list[proof.Proven]:
    return proof.ask(network, trials.make(trained(network.config)))


def test_a_file_that_agrees_says_how_far_it_is_off(artifact: Path) -> None:
    difference = proof.check("fake", "fake", artifact, spec(VALUES, streamable=True), proven(Sums(VALUES)))
    assert 0 < difference < 1e-5  # pieces are rounded to float32 in between


def test_a_file_that_does_not_is_refused_with_its_trial(artifact: Path) -> None:
    with pytest.raises(
        VerificationFailed, match=r"^onnx \(samples, 3 rows .*\): y differs from the trained model by 0\.\d"
    ):
        proof.check("onnx", "fake", artifact, spec(VALUES, streamable=True), proven(Sums(VALUES, error=-0.2)))


def test_what_is_called_streamable_must_answer_in_pieces_too(artifact: Path) -> None:
    """The fake says the same after every step, which a piece that does not know what follows cannot."""
    answers = proven(Sums(PER_STEP))
    assert proof.check("fake", "fake", artifact, spec(PER_STEP, streamable=False), answers) < 1e-5
    with pytest.raises(VerificationFailed, match=r"fed in pieces\): y differs"):
        proof.check("fake", "fake", artifact, spec(PER_STEP, streamable=True), answers)


def test_a_sample_holds_what_was_asked_and_answered() -> None:
    first = proven(Sums(VALUES))[0]
    assert first.sample.inputs is first.trial.inputs
    assert first.sample.outputs is first.expected
