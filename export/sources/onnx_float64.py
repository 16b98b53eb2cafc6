"""An ONNX file computed in float64, where that goes: by the reference implementation of the package `onnx`, which is NumPy.

ONNX Runtime takes no LSTM in float64. The reference has no LSTM of two directions or with lengths, and what it cannot
compute cannot be told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from serving.signature.tensors import Tensors


def opened(file: Path) -> Callable[[Tensors], Tensors | None]:
    """What answers in float64 to inputs in the file's own layout, None where that does not go."""
    held: list[Any] = []

    def wide(sent: Tensors) -> Tensors | None:
        try:
            if not held:
                held.append(_evaluator(file))
            names = held[0].output_names
            fed = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in sent.items()}
            return dict(zip(names, map(np.asarray, held[0].run(None, fed)), strict=True))
        except Exception:  # noqa: BLE001 - no package onnx, an operator that it has not, another datatype within: it cannot
            return None

    return wide


def _evaluator(file: Path) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(file)
    _widen(model.graph)
    return ReferenceEvaluator(model)


def _widen(graph: Any) -> None:
    """Makes every float32 of a graph a float64: what goes in and out, constants, and what is cast to one."""
    import onnx
    from onnx import TensorProto, numpy_helper

    def widened(tensor: Any) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))

    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        widened(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.type == onnx.AttributeProto.TENSOR:
                widened(attribute.t)
            for inner in (attribute.g, *attribute.graphs):
                _widen(inner)
