"""ONNX files of a few nodes, as users of Triton have them: no network of ours, and nothing beside the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

TYPES = {"FP16": "FLOAT16", "FP32": "FLOAT", "BYTES": "STRING", "FP64": "DOUBLE"}

Tensor = tuple[str, Sequence[int | str]]  # a datatype and a shape, names where it is free


def write(
    path: Path,
    nodes: Sequence[
        tuple[str, Sequence[str], Sequence[str]] | tuple[str, Sequence[str], Sequence[str], dict[str, Any]]
    ],
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    kept: Mapping[str, npt.NDArray[Any]] = MappingProxyType({}),
    opset: int = 17,
) -> Path:
    """Writes a graph of `nodes` (operator, inputs, outputs, attributes); operators of `ai.onnx.ml` begin with `ml.`.

    `kept` are its constants.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    def declared(side: Mapping[str, Tensor]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, getattr(TensorProto, TYPES.get(kind, kind)), list(shape))
            for name, (kind, shape) in side.items()
        ]

    made = []
    for operator, into, out, *attributes in nodes:
        domain = "ai.onnx.ml" if operator.startswith("ml.") else ""
        said = attributes[0] if attributes else {}
        made.append(helper.make_node(operator.removeprefix("ml."), into, out, domain=domain, **said))
    constants = [numpy_helper.from_array(array, name) for name, array in kept.items()]
    graph = helper.make_graph(made, "graph", declared(inputs), declared(outputs), constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, str(path))
    return path
