"""How rows flow through an ONNX graph, operator by operator: what mixes them is found, and nothing is claimed of the rest.

Each graph takes `x` `[rows, 6, 4]` and answers `y`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from protos import onnx_graph_pb2 as pb
from serving.backends.onnx_graph import rows

CONSTANTS = {
    "first": np.array([0]),
    "second": np.array([1]),
    "two": np.array([2]),
    "last": np.array([-1]),
    "all": np.array([2**63 - 1]),
    "zero": np.array(0),
    "keep": np.array([0, 0, -1]),
    "merge": np.array([-1, 4]),
    "weights": np.zeros((4, 3), np.float32),
    "square": np.zeros((6, 6), np.float32),
    "bias": np.zeros(3, np.float32),
    "W": np.zeros((1, 20, 4), np.float32),
    "R": np.zeros((1, 20, 5), np.float32),
    "scale": np.ones(6, np.float32),
}


def node(operator: str, *inputs: str, to: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(
        operator, ["x", *inputs] if "x" not in inputs else list(inputs), [to], operator, **attributes
    )


def on(first: str, operator: str, *inputs: str, to: str = "y", **attributes: Any) -> NodeProto:
    """A node whose first input is not `x`."""
    return helper.make_node(operator, [first, *inputs], [to], operator, **attributes)


def mixed(nodes: Sequence[NodeProto], opset: int = 17, axis: int | None = 0, outputs: Sequence[str] = ("y",)) -> str:
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 6, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return rows.mixed(pb.ModelProto.FromString(model.SerializeToString()), {"x": axis})


def operators(value: object) -> str:
    """How a case is called."""
    return "-".join(each.op_type for each in value) if isinstance(value, list) else str(value)


TURNED = node("Transpose", to="t", perm=[1, 0, 2])  # steps first


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([node("ReduceMean", axes=[0])], "ReduceMean 'ReduceMean' reduces over the rows"),
        ([node("ReduceMax")], "ReduceMax 'ReduceMax' reduces over the rows"),
        ([node("ReduceSum", "first")], "reduces over the rows"),
        ([node("ArgMax")], "reduces over the rows"),
        ([node("Softmax", axis=0)], "goes over the rows"),
        ([node("LogSoftmax", axis=-3)], "goes over the rows"),
        ([node("TopK", "two", axis=0)], "sorts the rows"),
        ([node("CumSum", "zero")], "adds up over the rows"),
        ([node("Gather", "first", axis=0)], "takes certain rows out"),
        ([node("Slice", "second", "all", "first")], "takes certain rows out"),
        ([node("Slice", "first", "last", "first")], "takes certain rows out"),
        ([node("Split", axis=0)], "takes the batch apart"),
        ([node("Concat", "x", "x", axis=0)], "puts rows one after the other"),
        ([TURNED, node("Add", "x", "t")], "puts every row together with every other"),
        ([node("Unsqueeze", "second", to="u"), on("u", "Add", "x")], "puts every row together with every other"),
        ([TURNED, on("t", "Softmax", axis=1)], "goes over the rows"),
        ([node("Transpose", to="t", perm=[2, 1, 0]), on("t", "MatMul", "weights")], "sums over the rows"),
        ([node("Transpose", to="t", perm=[2, 1, 0]), node("MatMul", "x", "t")], "puts every row together"),
        ([node("Transpose", to="t", perm=[1, 2, 0]), on("t", "MatMul", "weights")], "sums over the rows"),
        ([node("Flatten", to="f"), on("f", "Gemm", "bias", transA=1)], "sums over the rows"),
        ([node("Einsum", equation="bij->ij")], "sums over the rows"),
        ([node("Einsum", "x", "x", equation="aij,bij->ab")], "puts every row together"),
        ([node("LSTM", "W", "R", hidden_size=5)], "takes rows for steps"),
        ([TURNED, on("t", "LSTM", "W", "R", hidden_size=5, layout=1)], "takes rows for steps"),
        ([node("LayerNormalization", "scale", axis=0)], "normalises over the rows"),
        ([node("BatchNormalization", *["scale"] * 4, training_mode=1)], "as in training"),
        ([TURNED, on("t", "BatchNormalization", *["scale"] * 4)], "takes rows for channels"),
        ([node("DynamicQuantizeLinear")], "quantises by the largest value of all rows"),
        ([node("ReverseSequence", "first", batch_axis=1, time_axis=0)], "turns the order of the rows round"),
        ([TURNED, on("t", "Conv", "W")], "takes rows for channels"),
    ],
    ids=operators,
)
def test_what_mixes_rows_is_named(nodes: Sequence[NodeProto], told: str) -> None:
    assert told in mixed(nodes)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Relu")],
        [node("Add", "scale")],
        [node("ReduceMean", axes=[1], keepdims=0, to="m"), on("m", "Softmax", axis=-1)],
        [node("Softmax", axis=2)],
        [node("TopK", "two")],
        [node("TopK", "counted", axis=0)],  # as many as there are rows, who knows: they may be put back
        [node("Gather", "first", axis=1, to="g"), on("g", "ReduceMax", axes=[1, 2])],
        [node("Slice", "first", "all", "first", to="s"), on("s", "Slice", "second", "all", "second")],
        [node("Concat", "x", "x", axis=2)],
        [node("Split", axis=2)],
        [TURNED, on("t", "LSTM", "W", "R", hidden_size=5, to="l"), on("l", "Softmax", axis=0)],
        [TURNED, on("t", "Softmax", axis=0)],
        [node("LSTM", "W", "R", hidden_size=5, layout=1, to="l"), on("l", "ReduceMax", axes=[1])],
        [node("Unsqueeze", "first", to="u"), on("u", "ReduceMax", axes=[0, 2, 3])],
        [node("Reshape", "keep", to="r"), on("r", "Softmax", axis=1)],
        [node("MatMul", "weights", to="m"), on("m", "Add", "bias")],
        [node("MatMul", "x", "weights")],
        [node("Flatten", to="f"), on("f", "Gemm", "weights", "bias")],
        [node("Einsum", "x", "x", equation="bij,bkj->bik")],
        [node("LayerNormalization", "scale")],
        [node("BatchNormalization", *["scale"] * 4)],
        [node("ReverseSequence", "first", batch_axis=0, time_axis=1)],
        [node("Conv", "W")],
        [node("Transpose", to="t", perm=[1, 2, 0]), on("square", "MatMul", "t")],
    ],
    ids=operators,
)
def test_what_keeps_them_apart_is_believed_to(nodes: Sequence[NodeProto]) -> None:
    assert mixed(nodes) == ""


@pytest.mark.parametrize(
    "nodes",
    [
        [node("NonZero", to="n"), on("n", "ReduceMax", axes=[0])],  # an operator that is not known here
        [node("Reshape", "merge", to="r"), on("r", "ReduceMax", axes=[0])],  # rows and steps on one axis
        [node("ReduceMax", to="m"), node("Range", "zero", "m", "zero", to="r"), node("Less", "r")],  # only how many
        [node("ReduceMax", to="m"), node("Reshape", "m", to="r"), node("Relu")],  # reaches no output
    ],
    ids=operators,
)
def test_nothing_is_claimed_where_nobody_can_know(nodes: Sequence[NodeProto]) -> None:
    assert mixed(nodes) == ""


def test_older_files_flatten_before_a_softmax() -> None:
    """Up to opset 12 it goes over its axis and all behind it."""
    assert mixed([node("Softmax", axis=0)], opset=11)
    assert not mixed([node("Softmax", axis=1)], opset=11)
    assert not mixed([node("Softmax")], opset=11)


def test_a_file_whose_rows_nobody_looks_for_mixes_none() -> None:
    assert mixed([node("ReduceMean", axes=[0])], axis=None) == ""


def test_what_is_mixed_stays_so_until_it_is_answered() -> None:
    nodes = [
        node("ReduceMean", axes=[0], to="m"),
        node("Sub", "x", "m", to="s"),
        on("s", "Relu", to="r"),
        on("r", "Tanh"),
    ]
    assert mixed(nodes).startswith("ReduceMean")
