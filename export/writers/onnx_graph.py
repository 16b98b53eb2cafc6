"""An ONNX graph under composition: nodes in order, and the constants that they read (opset 17, IR 8).

A constant is known by its name alone. Two nodes that ask for the same integers share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export import canonical
from export.precision import Stored
from models.config import LSTMConfig
from serving.signature.tensors import TensorSpec

OPSET = 17
IR_VERSION = 8


class Graph:
    """Nodes and constants under composition; a node is named after its first output."""

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        self.stored = stored
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, array: npt.ArrayLike) -> str:
        self._constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def matrix(self, name: str, arrays: npt.NDArray[Any], scales: npt.NDArray[Any] | None) -> str:
        """A constant that is kept as it is given and restored to float32."""
        kept = self.constant(f"{name}_stored", arrays)
        if scales is None:
            return self.add("Cast", [kept], name, to=TensorProto.FLOAT)
        cast = self.add("Cast", [kept], f"{name}_cast", to=TensorProto.FLOAT)
        return self.add("Mul", [cast, self.constant(f"{name}_scale", scales)], name)

    def integers(self, *values: int) -> str:
        """A constant INT64 vector, named after its values and so shared by all that need the same."""
        return self.constant("_".join(("integers", *map(str, values))), np.array(values, np.int64))

    def add(self, operator: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    def model(self, config: LSTMConfig) -> onnx.ModelProto:
        inputs, outputs = map(_value, canonical.inputs(config)), map(_value, canonical.outputs(config))
        graph = helper.make_graph(self._nodes, "lstm", list(inputs), list(outputs), list(self._constants.values()))
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="lstm-serving")


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    """A declared input or output; the free axes are called rows and steps, in this order."""
    shape = [free if size == -1 else size for size, free in zip(tensor.shape, ("rows", "steps", ""), strict=False)]
    return helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(tensor.dtype), shape)
