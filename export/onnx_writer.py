"""Writes `model.onnx` node by node: one `LSTM` node a layer and a handful around them (opset 17, IR 8).

No converter is asked, so that the graph stays as small as the network is and reads the same whoever trained it. One
fact that surprises: nothing here masks the padding on its way in. An `LSTM` node with `sequence_lens` takes nothing
from the steps behind a row's length and answers exactly 0 there; only the bias of a head for every step is masked.

Source: https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export import signature
from export.precision import Stored
from models.checkpoint import DIRECTIONS, Weights
from models.config import LSTMConfig
from serving.spec import TensorSpec

BACKEND = "onnx_runtime"

OPSET = 17
IR_VERSION = 8

_GATES = (0, 3, 1, 2)  # ours are input, forget, cell, output; ONNX stores input, output, forget, cell


def write(config: LSTMConfig, weights: Weights, path: Path, stored: Mapping[str, Stored] | None = None) -> None:
    """Writes the network to the file `path`, with the inputs and outputs of `export.signature`.

    Matrices in `stored` get a node or two that restore them, which the runtime folds away when it loads the file; what is
    otherwise multiplied into them, scalings, is computed then.

    Raises `onnx.checker.ValidationError` should this module ever compose an invalid graph (the checker runs with full
    shape inference), `OSError` when writing fails.
    """
    graph = _Graph(stored or {})
    lengths = graph.add("Cast", ["lengths"], "lengths_int32", to=TensorProto.INT32)
    steps = _first_steps(graph, config, weights)
    h0, c0 = _states_in(graph, config, "h0"), _states_in(graph, config, "c0")
    hn, cn = (
        [f"layer{layer}_hn" for layer in range(config.layers)],
        [f"layer{layer}_cn" for layer in range(config.layers)],
    )
    for layer in range(config.layers):
        if layer > 0:
            # [steps, directions, rows, hidden] -> [steps, rows, directions * hidden]
            steps = _merge(graph, config, f"layer{layer - 1}_y", f"layer{layer}_x", (0, 2, 1, 3))
        graph.add(
            "LSTM",
            [steps, *_parameters(graph, config, weights, layer), lengths, h0[layer], c0[layer]],
            *(f"layer{layer}_y", hn[layer], cn[layer]),
            hidden_size=config.hidden,
            direction="bidirectional" if config.bidirectional else "forward",
        )
    _head(graph, config, weights)
    _states_out(graph, hn, "hn")
    _states_out(graph, cn, "cn")
    model = graph.model(config)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


class _Graph:
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
        inputs, outputs = map(_value, signature.inputs(config)), map(_value, signature.outputs(config))
        graph = helper.make_graph(self._nodes, "lstm", list(inputs), list(outputs), list(self._constants.values()))
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="lstm-serving")


def _value(tensor: TensorSpec) -> onnx.ValueInfoProto:
    """A declared input or output; the free axes are called rows and steps, in this order."""
    shape = [free if size == -1 else size for size, free in zip(tensor.shape, ("rows", "steps", ""), strict=False)]
    return helper.make_tensor_value_info(tensor.name, helper.np_dtype_to_tensor_dtype(tensor.dtype), shape)


def _first_steps(graph: _Graph, config: LSTMConfig, weights: Weights) -> str:
    """What layer 0 reads: [steps, rows, features or embedding]. The division by `input.scale` is in its weights, if it can be."""
    if config.input == "features":
        centred = graph.add("Sub", ["x", graph.constant("input.mean", weights["input.mean"])], "centred")
        if graph.stored:
            centred = graph.add("Div", [centred, graph.constant("input.scale", weights["input.scale"])], "standardised")
        return graph.add("Transpose", [centred], "layer0_x", perm=(1, 0, 2))
    ids = graph.add("Transpose", ["x"], "ids_by_step", perm=(1, 0))  # [steps, rows]
    bounds = [graph.constant("first_id", np.int64(0)), graph.constant("last_id", np.int64(config.vocabulary - 1))]
    known = graph.add("Clip", [ids, *bounds], "known_ids")  # the padding may hold anything
    if "embedding" in graph.stored:
        table = graph.matrix("embedding", graph.stored["embedding"].array, graph.stored["embedding"].scale)
    else:
        table = graph.constant("embedding", weights["embedding"])
    return graph.add("Gather", [table, known], "layer0_x")


def _parameters(graph: _Graph, config: LSTMConfig, weights: Weights, layer: int) -> list[str]:
    """W [directions, 4 * hidden, inputs], R [directions, 4 * hidden, hidden], B [directions, 8 * hidden]."""
    kinds: dict[str, list[npt.NDArray[Any]]] = {"W": [], "R": [], "B": []}
    directions = DIRECTIONS[: config.directions]
    if graph.stored:
        names = [
            _stored_parameters(graph, f"layer{layer}_{kind}", [f"lstm.{layer}.{d}.{part}" for d in directions])
            for kind, part in (("W", "weight_input"), ("R", "weight_hidden"))
        ]
        both = ("bias_input", "bias_hidden")
        biases = [np.concatenate([_gates(weights[f"lstm.{layer}.{d}.{kind}"]) for kind in both]) for d in directions]
        return [*names, graph.constant(f"layer{layer}_B", np.stack(biases))]
    for direction in directions:
        w, r, b_input, b_hidden = (
            _gates(weights[f"lstm.{layer}.{direction}.{kind}"])
            for kind in ("weight_input", "weight_hidden", "bias_input", "bias_hidden")
        )
        if layer == 0 and config.input == "features":
            w = (w.astype(np.float64) / weights["input.scale"]).astype(np.float32)
        kinds["W"].append(w)
        kinds["R"].append(r)
        kinds["B"].append(np.concatenate([b_input, b_hidden]))
    return [graph.constant(f"layer{layer}_{kind}", np.stack(arrays)) for kind, arrays in kinds.items()]


def _stored_parameters(graph: _Graph, name: str, matrices: Sequence[str]) -> str:
    """[directions, 4 * hidden, columns], restored from what is kept of the matrices of each direction."""
    kept = [graph.stored[matrix] for matrix in matrices]
    scales = [_gates(matrix.scale) for matrix in kept if matrix.scale is not None]
    return graph.matrix(name, np.stack([_gates(matrix.array) for matrix in kept]), np.stack(scales) if scales else None)


def _gates(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    blocks = np.split(array, 4)
    return np.concatenate([blocks[i] for i in _GATES])


def _merge(graph: _Graph, config: LSTMConfig, source: str, target: str, perm: tuple[int, ...]) -> str:
    """Moves the axis of the directions beside that of the hidden units by `perm`, and makes the two one."""
    moved = graph.add("Transpose", [source], f"{target}_by_direction", perm=perm)
    shape = graph.integers(*[0] * (len(perm) - 2), config.directions * config.hidden)  # 0 keeps an axis as it is
    return graph.add("Reshape", [moved, shape], target)


def _head(graph: _Graph, config: LSTMConfig, weights: Weights) -> None:
    """`y`. The scaling of values, `linear(h) * output.scale + output.mean`, is in the weights and the bias."""
    weight, bias = (weights[f"head.{kind}"].astype(np.float64) for kind in ("weight", "bias"))
    unscaled, y = config.head != "classification" and bool(graph.stored), "y"
    if config.head != "classification" and not unscaled:
        scale, mean = weights["output.scale"], weights["output.mean"]
        weight, bias = weight * scale[:, None], bias * scale + mean
    if graph.stored:
        kept = graph.stored["head.weight"]
        product = graph.matrix("head.weight", kept.array.T, None if kept.scale is None else kept.scale.T)
    else:
        product = graph.constant("head.weight", weight.astype(np.float32).T)  # [hidden * directions, outputs]
    operands = [product, graph.constant("head.bias", bias.astype(np.float32))]
    last = config.layers - 1
    if config.head == "values_per_step":
        h = _merge(graph, config, f"layer{last}_y", "head_x", (2, 0, 1, 3))  # [rows, steps, directions * hidden]
        linear = "standardised_values" if unscaled else "values"
        graph.add("Add", [graph.add("MatMul", [h, operands[0]], "head_product"), operands[1]], linear)
        if unscaled:
            _scale_values(graph, weights, linear, "values")
        _zero_behind_lengths(graph, "values", y)
        return
    h = _merge(graph, config, f"layer{last}_hn", "head_x", (1, 0, 2))  # [rows, directions * hidden]
    if unscaled:
        _scale_values(graph, weights, graph.add("Gemm", [h, *operands], "standardised_values"), y)
    elif config.head == "values":
        graph.add("Gemm", [h, *operands], y)
    else:
        graph.add("Softmax", [graph.add("Gemm", [h, *operands], "logits")], y, axis=-1)


def _scale_values(graph: _Graph, weights: Weights, source: str, target: str) -> None:
    scaled = graph.add("Mul", [source, graph.constant("output.scale", weights["output.scale"])], "scaled_values")
    graph.add("Add", [scaled, graph.constant("output.mean", weights["output.mean"])], target)


def _zero_behind_lengths(graph: _Graph, values: str, target: str) -> None:
    """`values` [rows, steps, outputs] where the step, counted from 1, is within the row's length; 0 elsewhere."""
    shape = graph.add("Shape", [values], "steps_and_outputs", start=1, end=3)
    one = numpy_helper.from_array(np.array([1], np.int64))
    ones = graph.add("ConstantOfShape", [shape], "ones", value=one)
    numbers = graph.add("CumSum", [ones, graph.constant("axis_of_steps", np.int64(0))], "step_numbers")
    lengths = graph.add("Unsqueeze", ["lengths", graph.integers(1, 2)], "lengths_by_row")
    within = graph.add("LessOrEqual", [numbers, lengths], "within_length")
    graph.add("Where", [within, values, graph.constant("zero", np.float32(0))], target)


def _states_in(graph: _Graph, config: LSTMConfig, name: str) -> list[str]:
    """[rows, layers * directions, hidden] -> for each layer [directions, rows, hidden]."""
    by_layer = graph.add("Transpose", [name], f"{name}_by_layer", perm=(1, 0, 2))
    if config.layers == 1:
        return [by_layer]
    layers = [f"layer{layer}_{name}" for layer in range(config.layers)]
    graph.add("Split", [by_layer], *layers, axis=0)
    return layers


def _states_out(graph: _Graph, layers: Sequence[str], name: str) -> None:
    """For each layer [directions, rows, hidden] -> [rows, layers * directions, hidden]."""
    together = layers[0] if len(layers) == 1 else graph.add("Concat", layers, f"{name}_by_layer", axis=0)
    graph.add("Transpose", [together], name, perm=(1, 0, 2))
