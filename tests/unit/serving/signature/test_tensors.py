"""Datatypes in memory, and the shape that a tensor has in its file."""

from __future__ import annotations

import pytest

from serving.signature.tensors import BF16, DTYPES, TensorSpec


@pytest.mark.parametrize(("rows_axis", "shape"), [(0, (-1, 2, 4)), (1, (2, -1, 4)), (2, (2, 4, -1)), (None, (2, 4))])
def test_the_shape_in_the_file(rows_axis: int | None, shape: tuple[int, ...]) -> None:
    assert TensorSpec("h", "FP32", (-1, 2, 4), rows_axis).file_shape == shape


def test_a_value_that_all_rows_share_is_a_scalar_of_the_file() -> None:
    assert TensorSpec("rate", "INT64", (-1,), None).file_shape == ()


@pytest.mark.parametrize("datatype", DTYPES)
def test_numbers_are_little_endian_and_as_wide_as_their_names_say(datatype: str) -> None:
    dtype = TensorSpec("x", datatype, (-1,)).dtype
    digits = datatype.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert dtype.byteorder != ">"
    if datatype not in ("BOOL", "BYTES"):
        assert dtype.itemsize * 8 == int(digits)


def test_bfloat16_is_never_mistaken_for_a_whole_number() -> None:
    assert DTYPES["BF16"] is BF16
    assert BF16.kind not in "iu"
    assert DTYPES["UINT16"] != BF16
