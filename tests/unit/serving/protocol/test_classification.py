"""Classes instead of tensors, as a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.errors import InvalidInput
from serving.protocol.classification import MAX_ELEMENTS, classify

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "count", "labels", "expected"),
    [
        (np.array([[0.1, 0.7, 0.2]], np.float32), 2, (), [["0.700000:1", "0.200000:2"]]),
        (np.array([[0.1, 0.7]], np.float64), 1, ("a", "b"), [["0.700000:1:b"]]),
        (np.array([[0.1, 0.7]], np.float32), 2, ("a",), [["0.700000:1", "0.100000:0:a"]]),
        (np.array([[1, 2], [4, 3]], np.int32), 9, (), [["2:1", "1:0"], ["4:0", "3:1"]]),
        (np.array([[5, 5, 5]], np.uint8), 3, (), [["5:0", "5:1", "5:2"]]),
        (np.array([[NAN, -1.0]], np.float32), 2, (), [["-1.000000:1", "nan:0"]]),
        (np.array([[NAN, float("-inf"), 1]], np.float32), 3, (), [["1.000000:2", "-inf:1", "nan:0"]]),
        (np.array([[[1.0, 2.0], [4.0, 3.0]]], np.float32), 2, ("a", "b", "c"), [["4.000000:2:c", "3.000000:3"]]),
        (np.zeros((2, 0), np.float32), 3, (), [[], []]),
        (np.array([[-(2**63), 2**63 - 1]], np.int64), 1, (), [["9223372036854775807:1"]]),
    ],
)
def test_table(values: np.ndarray[Any, Any], count: int, labels: tuple[str, ...], expected: list[list[str]]) -> None:
    got = classify("y", values, count, labels)
    assert [[entry.decode() for entry in row] for row in got] == expected
    assert got.shape == (len(values), len(expected[0]))


def test_too_many_to_order() -> None:
    classify("y", np.zeros((1, MAX_ELEMENTS), np.uint8), 1, ())
    with pytest.raises(InvalidInput, match=f"'y' has {MAX_ELEMENTS + 1} elements, at most {MAX_ELEMENTS}"):
        classify("y", np.zeros((1, MAX_ELEMENTS + 1), np.uint8), 1, ())
