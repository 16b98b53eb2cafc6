"""Shapes that clients see instead of the file's."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from protos import model_config_pb2 as pb
from serving.errors import ModelConfigError
from serving.repository import model_config
from serving.repository.config_in_force import config_in_force
from serving.repository.reshapes import shown
from serving.signature.spec import ModelSpec
from serving.signature.tensors import TensorSpec


def spec(shape: tuple[int, ...], rows_axis: int | None = 0, *, batched: bool = True) -> ModelSpec:
    x = TensorSpec("x", "FP32", shape, rows_axis)
    x = x if not batched or rows_axis is not None else TensorSpec("x", "FP32", (-1, 2))
    return ModelSpec(
        inputs=(x,) if x.shape == shape else (x, TensorSpec("s", "FP32", shape, rows_axis)),
        outputs=(TensorSpec("y", "FP32", (-1 if batched else 1,), 0 if batched else None),),
        lengths=None,
        state=(),
        streamable=False,
        tolerance=1e-5,
        weights_sha256="",
        batched=batched,
    )


def written(dims: str, reshape: str = "") -> pb.ModelConfig:
    return text_format.Parse(
        f'name: "m" input {{ name: "x" data_type: TYPE_FP32 dims: {dims} {reshape} }}', pb.ModelConfig()
    )


@pytest.mark.parametrize(
    ("shape", "batched", "dims", "reshape", "sent", "computed"),
    [
        ((1, 1, 3, 4, 4), False, "[3, 4, 4]", "reshape { shape: [1, 3, 4, 4] }", (1, 3, 4, 4), (1, 1, 3, 4, 4)),
        ((-1, 6), True, "[2, 3]", "reshape { shape: [6] }", (7, 2, 3), (7, 6)),
        ((-1, -1, 1, -1, 2), True, "[-1, -1, 2]", "reshape { shape: [-1, 1, -1, 2] }", (7, 4, 5, 2), (7, 4, 1, 5, 2)),
        ((-1,), True, "[1]", "reshape { shape: [] }", (7, 1), (7,)),
        ((-1,), True, "[1]", "reshape {}", (7, 1), (7,)),
        ((-1,), True, "[1]", "", (7, 1), (7,)),
        ((1,), False, "[1, 1]", "", (1, 1, 1), (1,)),
        ((-1, 6), True, "[6]", "reshape { shape: [6] }", (7, 6), (7, 6)),
        ((-1, 6), True, "[6]", "", (7, 6), (7, 6)),
    ],
)
def test_what_is_sent_is_reshaped(
    shape: tuple[int, ...], batched: bool, dims: str, reshape: str, sent: tuple[int, ...], computed: tuple[int, ...]
) -> None:
    own = spec(shape, 0 if batched else None, batched=batched)
    (x,) = shown(own, written(dims, reshape)).inputs
    assert (x.as_computed(sent), x.as_shown(computed)) == (computed, sent)


@pytest.mark.parametrize("dims", ["[1]"])
def test_a_lone_scalar_is_one_element_already(dims: str) -> None:
    own = spec((1,), None, batched=False)
    assert shown(own, written(dims)) == own


@pytest.mark.parametrize(
    ("dims", "reshape", "said"),
    [
        ("[3, 2]", "[4]", r"input 'x' is reshaped to \[4\]; the model's own dims are \[6\]"),
        ("[4, 2]", "[6]", r"has another number of elements in dims \[4, 2\] than in reshape \[6\]"),
        ("[-1]", "[6]", "another number of elements"),
        ("[0, 6]", "[6]", "has a size in dims or reshape that is neither positive nor -1"),
        ("[6]", "[]", r"is reshaped to \[\]; the model's own dims are \[6\]"),
    ],
)
def test_reshapes_that_do_not_fit(dims: str, reshape: str, said: str) -> None:
    with pytest.raises(ModelConfigError, match=said):
        shown(spec((-1, 6)), written(dims, f"reshape {{ shape: {reshape} }}"))


def test_free_sizes_keep_as_many_elements_between_them() -> None:
    own = spec((-1, -1, 8, -1, 6))
    assert shown(own, written("[-1, 2, 4, -1, 1, 6]", "reshape { shape: [-1, 8, -1, 6] }")).inputs[0].shown is not None
    with pytest.raises(ModelConfigError, match="another number of elements"):
        shown(own, written("[-1, 2, 4, 2, -1, 3]", "reshape { shape: [-1, 8, -1, 6] }"))


@pytest.mark.parametrize(
    ("shape", "batched", "dims", "reshape", "told"),
    [
        ((-1, 6), True, "[2, 3]", "reshape { shape: [6] }", ([2, 3], [6])),
        ((-1,), True, "[1]", "", ([1], [])),
        ((1,), False, "[1]", "", ([1], None)),
    ],
)
def test_what_is_in_force_says_both_and_can_be_written_back(
    shape: tuple[int, ...], batched: bool, dims: str, reshape: str, told: tuple[list[int], list[int] | None]
) -> None:
    own = spec(shape, 0 if batched else None, batched=batched)
    text = text_format.MessageToString(written(dims, reshape))
    for _ in range(2):
        config = model_config.parse(text, "m")
        in_force = config_in_force(config, shown(own, config.written), "onnx_runtime", "cpu", labelled=())
        (x,) = in_force.input
        assert (list(x.dims), list(x.reshape.shape) if x.HasField("reshape") else None) == told
        text = text_format.MessageToString(in_force)
