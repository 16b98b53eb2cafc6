"""Which files may be given empty tensors, by the operators in them."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from protos import onnx_graph_pb2 as pb
from serving.backends.onnx_graph import empties


def read(*nodes: onnx.NodeProto) -> pb.ModelProto:
    model = helper.make_model(helper.make_graph(list(nodes), "g", [], []))
    return pb.ModelProto.FromString(model.SerializeToString())


def node(operator: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)


def within(operator: str) -> onnx.NodeProto:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    branch = helper.make_graph([node(operator)], "b", [], [y])
    return node("If", then_branch=branch, else_branch=branch)


@pytest.mark.parametrize(
    ("nodes", "taken"),
    [
        ([node("Add"), node("Relu"), node("LabelEncoder", "ai.onnx.ml")], True),
        ([node("Add", "ai.onnx")], True),
        ([node("Add"), node("LSTM")], False),
        ([node("GRU")], False),
        ([node("Add", "com.example")], False),
        ([within("Add")], False),
        ([within("LSTM")], False),
        ([], True),
    ],
)
def test_only_operators_that_are_known_are_let(nodes: list[onnx.NodeProto], taken: bool) -> None:
    assert empties.taken(read(*nodes)) is taken
