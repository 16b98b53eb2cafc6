"""Rows first at every border, wherever the file has them."""

from __future__ import annotations

import numpy as np
import pytest

from serving.signature.axes import from_file, to_file
from serving.signature.tensors import TensorSpec


@pytest.mark.parametrize(
    ("rows_axis", "ours", "files"),
    [(0, (2, 3, 4), (2, 3, 4)), (1, (2, 3, 4), (3, 2, 4)), (2, (2, 3, 4), (3, 4, 2)), (None, (1, 3, 4), (3, 4))],
)
def test_there_and_back(rows_axis: int | None, ours: tuple[int, ...], files: tuple[int, ...]) -> None:
    tensor = TensorSpec("x", "FP32", (-1, -1, 4), rows_axis)
    array = np.arange(np.prod(ours), dtype=np.float32).reshape(ours)
    given = to_file(array, tensor)
    assert given.shape == files
    assert given.flags.c_contiguous
    np.testing.assert_array_equal(from_file(given, tensor), array)
    if rows_axis == 0:
        assert given is array, "nothing is copied where nothing moves"


def test_what_all_rows_share_is_given_to_the_file_once() -> None:
    """It travels once for each row, a scalar of the file as one value a row."""
    rate, scales = TensorSpec("rate", "INT64", (-1,), None), TensorSpec("scales", "FP32", (-1, 2), None)
    given = to_file(np.array([16000, 16000]), rate)
    assert (given.shape, int(given)) == ((), 16000)
    assert to_file(np.array([[1.0, 2.0], [1.0, 2.0]]), scales).tolist() == [1.0, 2.0]
