"""A graph under composition: what is equal is kept once, and what is kept smaller is restored by nodes."""

from __future__ import annotations

import numpy as np
import onnx

from export.writers.onnx_graph import IR_VERSION, OPSET, Graph
from models.config import LSTMConfig

CONFIG = LSTMConfig(features=3, hidden=5, outputs=2)


def test_the_same_integers_are_one_constant() -> None:
    graph = Graph({})
    assert graph.integers(1, -1) == graph.integers(1, -1) == "integers_1_-1"
    graph.integers(2)
    names = [constant.name for constant in graph.model(CONFIG).graph.initializer]
    assert names == ["integers_1_-1", "integers_2"]


def test_a_node_is_called_after_its_first_output() -> None:
    graph = Graph({})
    assert graph.add("Split", ["x"], "left", "right", axis=1) == "left"
    (node,) = graph.model(CONFIG).graph.node
    assert (node.name, node.op_type, list(node.output)) == ("left", "Split", ["left", "right"])


def test_matrices_are_restored_by_as_many_nodes_as_it_takes() -> None:
    graph = Graph({})
    half, whole = np.ones((2, 2), np.float16), np.ones((2, 2), np.int8)
    assert graph.matrix("a", half, None) == "a"
    assert graph.matrix("b", whole, np.ones((2, 1), np.float32)) == "b"
    assert [node.op_type for node in graph.model(CONFIG).graph.node] == ["Cast", "Cast", "Mul"]


def test_the_model_declares_the_canonical_signature() -> None:
    model = Graph({}).model(CONFIG)
    assert (model.ir_version, model.opset_import[0].version) == (IR_VERSION, OPSET)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "x": ["rows", "steps", 3],
        "lengths": ["rows"],
        "h0": ["rows", 1, 5],
        "c0": ["rows", 1, 5],
        "y": ["rows", 2],
        "hn": ["rows", 1, 5],
        "cn": ["rows", 1, 5],
    }
    assert model.graph.input[1].type.tensor_type.elem_type == onnx.TensorProto.INT64
