"""ONNX files that end the process which loads or runs them, at one level of optimisation or at each; and one that does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES, HIDDEN, OUTPUTS = 3, 4, 2


def write_float16(path: Path, seed: int = 0) -> None:
    """An LSTM and a linear layer in float16: ONNX Runtime 1.32.0 ends with signal 11 while it moves casts at level "all"."""
    _write_lstm(path, seed, np.float16, TensorProto.FLOAT16)


def write_healthy(path: Path, seed: int = 0) -> None:
    """The same in float32, which harms nobody."""
    _write_lstm(path, seed, np.float32, TensorProto.FLOAT)


def _write_lstm(path: Path, seed: int, dtype: type[np.floating[Any]], kind: int) -> None:
    generator = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.normal(size=shape).astype(dtype), name)

    nodes = [
        helper.make_node("Transpose", ["x"], ["time_first"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["time_first", "w", "r", "b"], ["states"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["states", "direction"], ["state"]),
        helper.make_node("Transpose", ["state"], ["rows_first"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["rows_first", "v"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["y"]),
    ]
    kept = [
        weights("w", 1, 4 * HIDDEN, FEATURES),
        weights("r", 1, 4 * HIDDEN, HIDDEN),
        weights("b", 1, 8 * HIDDEN),
        weights("v", HIDDEN, OUTPUTS),
        weights("bias", OUTPUTS),
        numpy_helper.from_array(np.array([1], np.int64), "direction"),
    ]
    _save(path, nodes, kept, kind)


def write_dividing(path: Path, seed: int = 0) -> None:
    """It divides the least whole number by -1, which ends the process with signal 8 at every level (on x86), when it is run."""
    nodes = [
        helper.make_node("Sub", ["x", "x"], ["zeros"]),
        helper.make_node("Cast", ["zeros"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Sub", ["whole", "one"], ["divisors"]),
        helper.make_node("Div", ["least", "divisors"], ["quotients"]),
        helper.make_node("Cast", ["quotients"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["numbers", "v"], ["y"]),
    ]
    weights = np.random.default_rng(seed).normal(size=(FEATURES, OUTPUTS)).astype(np.float32)
    kept = [
        numpy_helper.from_array(weights, "v"),
        numpy_helper.from_array(np.array(1, np.int64), "one"),
        numpy_helper.from_array(np.array(np.iinfo(np.int64).min, np.int64), "least"),
    ]
    _save(path, nodes, kept, TensorProto.FLOAT)


def write_of_another_rank(path: Path) -> None:
    """It takes one row, says that it answers [1, n], and answers [steps, 1, classes], as some recognisers do."""
    weights = np.random.default_rng(0).normal(size=(FEATURES, OUTPUTS)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["time_first"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["time_first", "v"], ["products"]),
        helper.make_node("CumSum", ["products", "zero"], ["sums"]),
        helper.make_node("Shape", ["sums"], ["sizes"]),
        helper.make_node("Greater", ["sizes", "zero"], ["all"]),
        helper.make_node("Compress", ["sizes", "all"], ["same_sizes"]),  # as far as anybody can infer, of any number
        helper.make_node("Reshape", ["sums", "same_sizes"], ["y"]),
    ]
    kept = [numpy_helper.from_array(weights, "v"), numpy_helper.from_array(np.array(0, np.int64), "zero")]
    _save(path, nodes, kept, TensorProto.FLOAT, x=[1, "steps", FEATURES], y=[1, "n"])


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    kept: list[onnx.TensorProto],
    kind: int,
    x: Sequence[int | str] = ("rows", "steps", FEATURES),
    y: Sequence[int | str] = ("rows", "steps", OUTPUTS),
) -> None:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info("y", kind, y)],
        kept,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
