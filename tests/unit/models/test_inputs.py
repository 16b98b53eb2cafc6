"""The canonical inputs are checked and completed before any framework sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.config import LSTMConfig
from models.inputs import InputError, complete, step_mask

Array = npt.NDArray[Any]

FEATURES = LSTMConfig(features=3, hidden=5, outputs=4)
IDS = LSTMConfig(input="tokens", vocabulary=11, embedding=6, hidden=5, outputs=4)
X = np.zeros((2, 5, 3), np.float32)
TOKENS = np.zeros((2, 5), np.int64)


@pytest.mark.parametrize(
    ("config", "inputs", "message"),
    [
        (FEATURES, {}, "x is missing"),
        (FEATURES, {"x": X, "mask": X}, "unknown input mask"),
        (FEATURES, {"x": X[:, :, :2]}, r"x has the shape \[2, 5, 2\]; it must be \[rows, steps, 3\]"),
        (FEATURES, {"x": X[:, :0]}, "at least one row and one step"),
        (FEATURES, {"x": X[0]}, r"x has the shape \[5, 3\]"),
        (FEATURES, {"x": X.astype(np.complex64)}, "x is complex64; it must be float32"),
        (IDS, {"x": TOKENS.astype(np.float32)}, "x is float32; it must be int64"),
        (IDS, {"x": TOKENS + 11}, "x holds ids from 11 to 11; known are 0 to 10"),
        (IDS, {"x": TOKENS - 1}, "x holds ids from -1 to -1"),
        (FEATURES, {"x": X, "lengths": np.array([0, 5])}, "lengths run from 0 to 5; x allows 1 to 5"),
        (FEATURES, {"x": X, "lengths": np.array([5, 6])}, "lengths run from 5 to 6"),
        (FEATURES, {"x": X, "lengths": np.array([5])}, r"lengths has the shape \[1\]; it must be \[2\]"),
        (FEATURES, {"x": X, "lengths": np.array([5.0, 5.0])}, "lengths is float64"),
        (FEATURES, {"x": X, "h0": np.zeros((1, 2, 5))}, r"h0 has the shape .*; it must be \[2, 1, 5\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(config: LSTMConfig, inputs: dict[str, Array], message: str) -> None:
    with pytest.raises(InputError, match=message):
        complete(config, inputs)


def test_what_is_left_out_is_full_length_and_zero_state() -> None:
    completed = complete(LSTMConfig(features=3, layers=2, bidirectional=True, hidden=5, outputs=4), {"x": X})
    assert {name: (array.dtype, array.shape) for name, array in completed.items()} == {
        "x": (np.float32, (2, 5, 3)),
        "lengths": (np.int64, (2,)),
        "h0": (np.float32, (2, 4, 5)),
        "c0": (np.float32, (2, 4, 5)),
    }
    assert completed["lengths"].tolist() == [5, 5]
    assert not completed["h0"].any()


def test_smaller_numbers_of_the_same_kind_are_widened() -> None:
    completed = complete(IDS, {"x": TOKENS.astype(np.int16), "lengths": np.array([1, 5], np.uint8)})
    assert (completed["x"].dtype, completed["lengths"].dtype) == (np.int64, np.int64)
    assert complete(FEATURES, {"x": X.astype(np.float64)})["x"].dtype == np.float32


def test_the_padding_may_hold_anything() -> None:
    ids = np.array([[1, 2, 99], [3, -7, 10**12]])
    assert complete(IDS, {"x": ids, "lengths": np.array([2, 1])})["x"] is not None
    with pytest.raises(InputError, match="x holds ids from 1 to 99"):
        complete(IDS, {"x": ids, "lengths": np.array([3, 1])})


def test_a_mask_is_true_for_the_steps_of_each_row() -> None:
    assert step_mask(np.array([2, 1, 3]), 3).tolist() == [[True, True, False], [True, False, False], [True] * 3]
