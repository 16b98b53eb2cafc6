"""What is read of an ONNX file: its constants, however they are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from protos import onnx_graph_pb2 as pb
from serving.backends.onnx_graph import reading
from serving.errors import RepositoryError


@pytest.mark.parametrize(
    "array",
    [
        np.array([0.5, -7.25], np.float32),
        np.array([1.5], np.float16),
        np.array(2.5, np.float64),
        np.array([[3, -4]], np.int32),
        np.array(5, np.int64),
        np.array([True, False]),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("raw", [True, False])
def test_a_small_constant_in_every_form(array: np.ndarray, raw: bool) -> None:  # type: ignore[type-arg]
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    values = array.tobytes() if raw else array.ravel().tolist()
    made = helper.make_tensor("c", kind, array.shape, values, raw=raw)
    got = reading.value(pb.TensorProto.FromString(made.SerializeToString()))
    assert got is not None
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    "made",
    [
        helper.make_tensor("weights", TensorProto.FLOAT, [100], np.zeros(100)),
        helper.make_tensor("words", TensorProto.STRING, [1], [b"a"]),
        TensorProto(name="elsewhere", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL),
        TensorProto(name="short", data_type=TensorProto.FLOAT, dims=[2], float_data=[1]),
    ],
    ids=lambda tensor: tensor.name,
)
def test_what_is_no_small_constant(made: TensorProto) -> None:
    assert reading.value(pb.TensorProto.FromString(made.SerializeToString())) is None


def test_numbers_and_texts_wherever_they_stand_the_smallest_first() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(-7.5, np.float32)))],
        "then",
        [],
        [],
    )
    nodes = [
        helper.make_node("LeakyRelu", ["x"], ["l"], alpha=0.125),
        helper.make_node(
            "LabelEncoder", ["w"], ["e"], domain="ai.onnx.ml", keys_strings=["north"], values_floats=[3.0, 4.0]
        ),
        helper.make_node("If", ["x"], ["i"], then_branch=inner),
    ]
    weights = numpy_helper.from_array(np.array([9.0, 8.0, 7.0], np.float32), "bias")
    graph = helper.make_graph(nodes, "g", [], [], [weights])
    model = pb.ModelProto.FromString(helper.make_model(graph).SerializeToString())
    assert reading.constants(model) == ([-7.5, 0.125, 3.0, 4.0, 9.0, 8.0, 7.0], ["north"])


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(RepositoryError, match="cannot be read as ONNX"):
        reading.read(tmp_path / "model.onnx")


def test_a_file_that_is_too_large_is_not_read_twice(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(reading.LARGEST_FILE + 1)
    assert reading.read(tmp_path / "model.onnx") is None


def test_the_operators_version() -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 17)])
    assert isinstance(model, onnx.ModelProto)
    assert reading.opset(pb.ModelProto.FromString(model.SerializeToString())) == 17
