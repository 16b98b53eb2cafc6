"""A file may say less than the specification; only a contradiction is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import RepositoryError
from serving.signature.stated import OUTPUTS, Stated, check
from serving.signature.tensors import TensorSpec

FILE = Path("1/model.onnx")
EXPECTED = (TensorSpec("x", "FP32", (-1, -1, 3)), TensorSpec("h", "FP32", (-1, 2, 4), rows_axis=1))
HELD: dict[str, Stated] = {"x": ("FP32", (-1, -1, 3)), "h": ("FP32", (2, -1, 4))}


@pytest.mark.parametrize(
    "x",
    [
        ("FP32", (-1, -1, 3)),
        ("FP32", (-1, -1, -1)),  # a free axis
        ("FP32", None),
        (None, (-1, -1, 3)),
        (None, None),
    ],
)
def test_what_fits(x: Stated) -> None:
    check(FILE, "inputs", EXPECTED, HELD | {"x": x})


@pytest.mark.parametrize("shape", [(1, -1), (-1, 11, 3), (7, 7, 7, 7)])
def test_what_a_file_states_of_the_shape_of_an_output_binds_nobody(shape: tuple[int, ...]) -> None:
    check(FILE, OUTPUTS, EXPECTED, HELD | {"x": ("FP32", shape)})
    with pytest.raises(RepositoryError, match="x is FP64 in the file"):
        check(FILE, OUTPUTS, EXPECTED, HELD | {"x": ("FP64", shape)})


def test_outputs_may_be_left_unserved() -> None:
    check(FILE, "outputs", EXPECTED, HELD | {"z": ("FP32", None)})
    with pytest.raises(RepositoryError, match="has the outputs x, but its specification names x, h"):
        check(FILE, "outputs", EXPECTED, {"x": HELD["x"]})


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {"x": HELD["x"]},
            "1/model.onnx has the inputs x, but its specification names x, h: the two belong to different",
        ),
        ({}, "1/model.onnx has the inputs none, but"),
        (HELD | {"z": ("FP32", None)}, "has the inputs x, h, z, but"),
        (HELD | {"x": ("FP64", None)}, "1/model.onnx: x is FP64 in the file and FP32 in its specification"),
        (HELD | {"x": (None, (-1, 5, 3))}, "x has shape [-1, 5, 3] in the file and [-1, -1, 3] in its specification"),
        (HELD | {"x": (None, (-1, 3))}, "x has shape [-1, 3] in the file"),
        # the file's own order of axes counts
        (HELD | {"h": (None, (-1, 2, 4))}, "h has shape [-1, 2, 4] in the file and [2, -1, 4] in its specification"),
    ],
)
def test_contradictions(stated: dict[str, Stated], message: str) -> None:
    with pytest.raises(RepositoryError) as raised:
        check(FILE, "inputs", EXPECTED, stated)
    assert message in str(raised.value)
