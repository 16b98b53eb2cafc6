"""A file may say less than the specification; only a contradiction is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import RepositoryError
from serving.signature.spec import MAX_BATCH_SIZE, WRITTEN_IN, ModelSpec
from serving.signature.stated import INPUTS, OUTPUTS, Stated, check
from serving.signature.tensors import TensorSpec

FILE = Path("1/model.onnx")
TENSORS = (TensorSpec("x", "FP32", (-1, -1, 3)), TensorSpec("h", "FP32", (-1, 2, 4), rows_axis=1))


def spec(*tensors: TensorSpec, **source: object) -> ModelSpec:
    batched = all(tensor.rows_axis is not None for tensor in tensors)
    named = {"inputs": tensors, "outputs": tensors, "lengths": None, "state": (), "batched": batched, "source": source}
    return ModelSpec(streamable=False, tolerance=1e-5, weights_sha256="", **named)  # type: ignore[arg-type]


EXPECTED = spec(*TENSORS)
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
    with pytest.raises(RepositoryError, match=r"has the outputs x, but spec\.json names x, h"):
        check(FILE, "outputs", EXPECTED, {"x": HELD["x"]})


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (
            {"x": HELD["x"]},
            "1/model.onnx has the inputs x, but spec.json names x, h: they must be the same, or the two belong to different",
        ),
        ({}, "1/model.onnx has the inputs none, but"),
        (HELD | {"z": ("FP32", None)}, "has the inputs x, h, z, but"),
        (HELD | {"x": ("FP64", None)}, "1/model.onnx: x is FP64 in the file and FP32 in spec.json"),
        (HELD | {"x": (None, (-1, 5, 3))}, "x has shape [-1, 5, 3] in the file and [-1, -1, 3] in spec.json"),
        (HELD | {"x": (None, (-1, 3))}, "x has shape [-1, 3] in the file"),
        # the file's own order of axes counts
        (HELD | {"h": (None, (-1, 2, 4))}, "h has shape [-1, 2, 4] in the file and [2, -1, 4] in spec.json"),
    ],
)
def test_contradictions(stated: dict[str, Stated], message: str) -> None:
    with pytest.raises(RepositoryError) as raised:
        check(FILE, "inputs", EXPECTED, stated)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("written", "rows", "stated", "said"),
    [
        ((-1, 5), 0, (-1, -1, 5), "(-1 is a free size): without max_batch_size, dims hold the rows too; set max_batch_size: 8"),
        ((-1, -1, -1, 5), 8, (-1, -1, 5), "(-1 is a free size): with max_batch_size, the rows are put in front of dims; take"),
        ((-1, -1, 5), 8, (-1, -1, 6), "(-1 is a free size)"),
        ((-1, 5), 8, (-1, -1, 5), "(-1 is a free size)"),
    ],
    ids=["rows are left out", "rows are there twice", "another size", "one is missing"],
)  # fmt: skip
def test_of_a_bare_file_config_pbtxt_is_named_and_what_it_says_of_rows(
    written: tuple[int, ...], rows: int, stated: tuple[int, ...], said: str
) -> None:
    source = {WRITTEN_IN: "config.pbtxt of model 'm'", MAX_BATCH_SIZE: rows}
    expected = spec(TensorSpec("seq", "FP32", (1, *written), None), **source)
    with pytest.raises(RepositoryError) as raised:
        check(FILE, INPUTS, expected, {"seq": ("FP32", stated)})
    place = f"1/model.onnx: seq has shape {list(stated)} in the file and {list(written)} in config.pbtxt of model 'm' "
    assert str(raised.value).startswith(f"{place}{said}")
    assert ("max_batch_size" in str(raised.value)) == (": with" in said)
