"""How answers are judged: classes, values, values per step; what has no target counts nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models import scoring
from models.checkpoint import Weights
from models.config import LSTMConfig
from models.examples import Examples
from models.inputs import Arrays


class Fixed:
    """A network whose answer is a function of `x`, and whose scale is 2."""

    config = LSTMConfig(features=1, head="values")

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def predict(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        return {"y": self._answer(inputs["x"])}

    def canonical_weights(self) -> dict[str, npt.NDArray[np.float32]]:
        return {"output.scale": np.array([2], np.float32)}

    def load_canonical(self, weights: Weights) -> None:
        raise NotImplementedError


def cases(*lengths: int) -> list[npt.NDArray[np.float32]]:
    """Sequences that count from 1."""
    return [np.arange(1, length + 1, dtype=np.float32)[:, None] for length in lengths]


def test_classes_are_judged_by_cross_entropy_and_accuracy() -> None:
    network = Fixed(lambda x: np.tile([0.25, 0.75], (len(x), 1)))
    loss, score = scoring.evaluate(network, Examples(cases(1, 2, 3), np.array([1, 1, 0])))
    assert loss == pytest.approx(-(2 * np.log(0.75) + np.log(0.25)) / 3)
    assert score == pytest.approx(2 / 3)


def test_values_are_judged_in_units_of_the_scale_and_in_raw_units() -> None:
    network = Fixed(lambda x: np.zeros((len(x), 1)))
    loss, score = scoring.evaluate(network, Examples(cases(1, 1), np.array([[4], [-2]], np.float32)))
    assert (loss, score) == ((2**2 + 1**2) / 2, -3.0)


def test_answers_per_step_are_the_true_steps_of_all_cases() -> None:
    examples = Examples(cases(2, 3), [np.array([[1], [np.nan]]), np.array([[2], [2], [5]])])
    network = Fixed(lambda x: x)
    assert scoring.answers(network, examples)[:, 0].tolist() == [1, 2, 1, 2, 3]
    assert scoring.evaluate(network, examples)[1] == pytest.approx(-(0 + 1 + 0 + 2) / 4)


def test_a_score_has_the_names_of_the_outputs() -> None:
    examples = Examples(cases(1, 1), np.array([[1, 10], [3, np.nan]], np.float32))
    assert scoring.score(np.zeros((2, 2)), examples, ("near", "far")) == {"near": 2.0, "far": 10.0}
    classes = Examples(cases(1, 1), np.array([0, 1]))
    assert scoring.score(np.array([[0.9, 0.1], [0.8, 0.2]]), classes, ("a", "b")) == 0.5


def test_more_cases_than_one_batch_keep_their_order() -> None:
    count = scoring.EVALUATION_ROWS + 3
    sequences = [np.array([[case]], np.float32) for case in range(count)]
    answers = scoring.answers(Fixed(lambda x: x[:, 0]), Examples(sequences, np.zeros(count, np.int64)))
    assert answers[:, 0].tolist() == list(range(count))
