"""The fake backend's function as an ONNX file: a second backend that computes the same, for versions that have two.

Every output is filled with the sum of a row's true steps on top of the first element of its state, as
`serving.backends.fake` does for the signature of `tests.support.fake_models`. It can be made to differ on purpose, by a factor
or by setting the second column of `y` apart, for tests of what compares two answers.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.backends import onnx_runtime
from serving.backends.base import artifact_digest
from serving.signature.spec import OWN_FILES, ModelSpec
from tests.support.fake_models import FEATURES, STATE

OPSET, IR_VERSION = 17, 8
FLOAT, INT64, DOUBLE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.DOUBLE


def content(*, factor: float = 1.0, apart: float = 0.0) -> bytes:
    """The file: every sum is multiplied by `factor`, and `apart` is added to the second column of `y`."""
    constants = {
        "zero": np.int64(0),
        "one": np.int64(1),
        "column": np.array([1]),
        "element": np.array([2]),
        "all_but_rows": np.array([1, 2]),
        "nothing": np.float64(0),
        "first_of_state": np.array([0]),
        "end_of_first": np.array([1]),
        "factor": np.float64(factor),
        "apart": np.array([[0, apart]], np.float32),
        "like_y": np.ones((1, 2), np.float32),
        "like_state": np.ones((1, 1, STATE[-1]), np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "one"], ["steps"]),
        node("Range", ["zero", "steps", "one"], ["places"]),
        node("Unsqueeze", ["lengths", "column"], ["length"]),
        node("Less", ["places", "length"], ["step_counts"]),  # [rows, steps]
        node("Unsqueeze", ["step_counts", "element"], ["counts"]),
        node("Cast", ["x"], ["exact"], to=DOUBLE),
        node("Where", ["counts", "exact", "nothing"], ["counted"]),
        node("ReduceSum", ["counted", "all_but_rows"], ["sum"], keepdims=0),  # [rows]
        node("Slice", ["h0", "first_of_state", "end_of_first", "element"], ["held"]),  # [rows, 1, 1]
        node("Cast", ["held"], ["held_exact"], to=DOUBLE),
        node("Unsqueeze", ["sum", "all_but_rows"], ["sum_of_row"]),
        node("Add", ["sum_of_row", "held_exact"], ["total"]),
        node("Mul", ["total", "factor"], ["scaled"]),
        node("Cast", ["scaled"], ["result"], to=FLOAT),
        node("Mul", ["result", "like_state"], ["hn"]),
        node("Identity", ["hn"], ["cn"]),
        node("Squeeze", ["result", "element"], ["result_of_row"]),
        node("Mul", ["result_of_row", "like_y"], ["equal"]),
        node("Add", ["equal", "apart"], ["y"]),
        node("Identity", ["c0"], ["unused"]),
    ]
    graph = helper.make_graph(
        nodes,
        "summing",
        [
            helper.make_tensor_value_info("x", FLOAT, ["rows", "steps", FEATURES]),
            helper.make_tensor_value_info("lengths", INT64, ["rows"]),
            *(helper.make_tensor_value_info(name, FLOAT, ["rows", *STATE[1:]]) for name in ("h0", "c0")),
        ],
        [
            helper.make_tensor_value_info("y", FLOAT, ["rows", 2]),
            *(helper.make_tensor_value_info(name, FLOAT, ["rows", *STATE[1:]]) for name in ("hn", "cn")),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write(version: Path, *, factor: float = 1.0, apart: float = 0.0) -> Path:
    """Puts it beside the fake model's file in a version folder, as a file of our own; returns its path."""
    path = version / onnx_runtime.FILE_NAME
    path.write_bytes(content(factor=factor, apart=apart))
    if (version / "spec.json").exists():
        spec = ModelSpec.read(version / "spec.json")
        source = {"export": {OWN_FILES: {path.name: artifact_digest(path)}}}
        (version / "spec.json").write_text(dataclasses.replace(spec, source=source).to_json())
    return path
