"""Writes `model.onnx` node by node: one `LSTM` node a layer and a handful around them (opset 17, IR 8).

No converter is asked, so that the graph stays as small as the network is and reads the same whoever trained it. Nothing
here masks the padding on its way in. An `LSTM` node with `sequence_lens` takes nothing from the steps behind a row's
length and answers exactly 0 there. Only the bias of a head for every step would show there. It is looked up for each
step in a table of the bias and zeros, or, where that would be a node too many, is the weight of one more input of the
head, which is 1 within a row's length and 0 behind.

Source: https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from export.precision import Stored
from export.writers.onnx_graph import Graph
from models.checkpoint import DIRECTIONS, Weights
from models.config import LSTMConfig

BACKEND = "onnx_runtime"

_GATES = (0, 3, 1, 2)  # ours are input, forget, cell, output; ONNX stores input, output, forget, cell
_NEAR_ZERO = 4.0  # an input's mean this many scales from 0 is no larger than what standardised inputs are at times


def write(config: LSTMConfig, weights: Weights, path: Path, stored: Mapping[str, Stored] | None = None) -> None:
    """Writes the network to the file `path`, with the inputs and outputs of `export.canonical`.

    Matrices in `stored` get a node or two that restore them, which the runtime folds away when it loads the file; what is
    otherwise multiplied into them, scalings, is computed then.

    Raises `onnx.checker.ValidationError` should this module ever compose an invalid graph (the checker runs with full
    shape inference), `OSError` when writing fails.
    """
    graph = Graph(stored or {})
    lengths = graph.add("Cast", ["lengths"], "lengths_int32", to=TensorProto.INT32)
    steps = _first_steps(graph, config, weights)
    h0, c0 = _states_in(graph, config)
    hn, cn = ([f"layer{layer}_{name}" for layer in range(config.layers)] for name in ("hn", "cn"))
    for layer in range(config.layers):
        if layer > 0:
            steps = _merge(graph, config, f"layer{layer - 1}_y", f"layer{layer}_x")
        graph.add(
            "LSTM",
            [steps, *_parameters(graph, config, weights, layer), lengths, h0[layer], c0[layer]],
            *(f"layer{layer}_y", hn[layer], cn[layer]),
            hidden_size=config.hidden,
            direction="bidirectional" if config.bidirectional else "forward",
        )
    _states_out(graph, hn, cn)
    _head(graph, config, weights)
    model = graph.model(config)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def _first_steps(graph: Graph, config: LSTMConfig, weights: Weights) -> str:
    """What layer 0 reads: [steps, rows, features or embedding]. What of the scaling can be is in its weights and biases."""
    if config.input == "features":
        x = "x"
        if not _mean_in_bias(graph, config, weights):
            x = graph.add("Sub", [x, graph.constant("input.mean", weights["input.mean"])], "centred")
        if graph.stored:
            x = graph.add("Div", [x, graph.constant("input.scale", weights["input.scale"])], "standardised")
        return graph.add("Transpose", [x], "layer0_x", perm=(1, 0, 2))
    ids = graph.add("Transpose", ["x"], "ids_by_step", perm=(1, 0))  # [steps, rows]
    bounds = [graph.constant("first_id", np.int64(0)), graph.constant("last_id", np.int64(config.vocabulary - 1))]
    known = graph.add("Clip", [ids, *bounds], "known_ids")  # the padding may hold anything
    if "embedding" in graph.stored:
        table = graph.matrix("embedding", graph.stored["embedding"].array, graph.stored["embedding"].scale)
    else:
        table = graph.constant("embedding", weights["embedding"])
    return graph.add("Gather", [table, known], "layer0_x")


def _mean_in_bias(graph: Graph, config: LSTMConfig, weights: Weights) -> bool:
    """Whether layer 0 takes off `input.mean` with its bias, after the product; far from 0, digits would be lost by that."""
    if config.input != "features" or graph.stored:
        return False
    return bool(np.all(np.abs(weights["input.mean"]) <= _NEAR_ZERO * weights["input.scale"]))


def _parameters(graph: Graph, config: LSTMConfig, weights: Weights, layer: int) -> list[str]:
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
            w = w.astype(np.float64) / weights["input.scale"]
            if _mean_in_bias(graph, config, weights):
                b_input = (b_input - w @ weights["input.mean"]).astype(np.float32)
            w = w.astype(np.float32)
        kinds["W"].append(w)
        kinds["R"].append(r)
        kinds["B"].append(np.concatenate([b_input, b_hidden]))
    return [graph.constant(f"layer{layer}_{kind}", np.stack(arrays)) for kind, arrays in kinds.items()]


def _stored_parameters(graph: Graph, name: str, matrices: Sequence[str]) -> str:
    """[directions, 4 * hidden, columns], restored from what is kept of the matrices of each direction."""
    kept = [graph.stored[matrix] for matrix in matrices]
    scales = [_gates(matrix.scale) for matrix in kept if matrix.scale is not None]
    return graph.matrix(name, np.stack([_gates(matrix.array) for matrix in kept]), np.stack(scales) if scales else None)


def _gates(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    blocks = np.split(array, 4)
    return np.concatenate([blocks[i] for i in _GATES])


def _merge(graph: Graph, config: LSTMConfig, source: str, target: str, perm: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    """[steps, directions, rows, hidden] -> [steps, rows, directions * hidden], or what `perm` makes of two directions."""
    if not config.bidirectional:
        return graph.add("Squeeze", [source, graph.integers(1)], target)
    moved = graph.add("Transpose", [source], f"{target}_by_direction", perm=perm)
    return graph.add("Reshape", [moved, graph.integers(0, 0, -1)], target)  # 0 keeps an axis as it is


def _head(graph: Graph, config: LSTMConfig, weights: Weights) -> None:
    """`y`. The scaling of values, `linear(h) * output.scale + output.mean`, is in the weights, if it can be, and the bias."""
    weight, bias = (weights[f"head.{kind}"].astype(np.float64) for kind in ("weight", "bias"))
    if config.head != "classification":
        scale, mean = weights["output.scale"], weights["output.mean"]
        weight, bias = weight * scale[:, None], bias * scale + mean
    from_one = config.head == "values_per_step" and _one_as_input(graph, config, weights)
    if from_one:
        weight = _with_bias(config, weight, bias)
    if graph.stored:
        kept = graph.stored["head.weight"]
        matrix = graph.matrix("head.weight", kept.array.T, None if kept.scale is None else kept.scale.T)
    else:
        matrix = graph.constant("head.weight", weight.astype(np.float32).T)  # [hidden * directions, outputs]
    if config.head == "values_per_step":
        _values_per_step(graph, config, weights, matrix, None if from_one else bias.astype(np.float32))
        return
    h, bias_name = _last_states(graph, config), graph.constant("head.bias", bias.astype(np.float32))
    if config.head == "classification":
        graph.add("Softmax", [graph.add("Gemm", [h, matrix, bias_name], "logits")], "y", axis=-1)
    elif graph.stored:
        graph.add("Add", [_scaled_product(graph, weights, h, matrix), bias_name], "y")
    else:
        graph.add("Gemm", [h, matrix, bias_name], "y")


def _last_states(graph: Graph, config: LSTMConfig) -> str:
    """What the last layer ends with: [rows, directions * hidden]."""
    last = f"layer{config.layers - 1}_hn"  # [directions, rows, hidden]
    if not config.bidirectional:
        return graph.add("Squeeze", [last, graph.integers(0)], "head_x")
    by_row = "hn" if config.layers == 1 else graph.add("Transpose", [last], "head_x_by_direction", perm=(1, 0, 2))
    return graph.add("Reshape", [by_row, graph.integers(0, -1)], "head_x")


def _scaled_product(graph: Graph, weights: Weights, h: str, matrix: str) -> str:
    """`h` by the head's matrix, in raw units but for the bias."""
    product = graph.add("MatMul", [h, matrix], "head_product")
    if not graph.stored:
        return product
    return graph.add("Mul", [product, graph.constant("output.scale", weights["output.scale"])], "scaled_product")


def _values_per_step(
    graph: Graph, config: LSTMConfig, weights: Weights, matrix: str, bias: npt.NDArray[np.float32] | None
) -> None:
    """Exactly 0 behind a row's length: `h` is 0 there, and so is what is looked up as its bias.

    `bias` is None where it is in the matrix, as the weight of the 1 that each direction has beside its `h`.
    """
    source = f"layer{config.layers - 1}_y"
    if bias is None:
        source = graph.add("Concat", [source, _one(graph, config)], "h_and_one", axis=3)
    if not config.bidirectional:  # what is moved last is small
        values = _scaled_product(graph, weights, _merge(graph, config, source, "head_x"), matrix)
        if bias is not None:
            values = graph.add("Add", [values, _bias_by_step(graph, bias, axis_of_steps=0)], "values_by_step")
        graph.add("Transpose", [values], "y", perm=(1, 0, 2))
        return
    h = _merge(graph, config, source, "head_x", perm=(2, 0, 1, 3))  # directions must move anyway: rows move with them
    if bias is None:
        graph.add("MatMul", [h, matrix], "y")
    else:
        graph.add("Add", [_scaled_product(graph, weights, h, matrix), _bias_by_step(graph, bias, axis_of_steps=1)], "y")


def _bias_by_step(graph: Graph, bias: npt.NDArray[np.float32], axis_of_steps: int) -> str:
    """[rows, steps, outputs], or steps first: the bias within a row's length, 0 behind.

    A 1 at the first step behind, none if there is no such step, summed up from the first step on: 0 within, 1 behind. That
    is the line of the table; a `Where` in its place takes the time of three nodes.
    """
    steps = graph.add("Shape", ["x"], "steps", start=1, end=2)
    first = graph.add("OneHot", ["lengths", steps, graph.integers(0, 1)], "first_behind", axis=axis_of_steps)
    behind = graph.add("CumSum", [first, graph.constant("axis_of_steps", np.int64(axis_of_steps))], "behind")
    table = graph.constant("head.bias", np.stack([bias, np.zeros_like(bias)]))
    return graph.add("Gather", [table, behind], "bias_by_step")


def _one_as_input(graph: Graph, config: LSTMConfig, weights: Weights) -> bool:
    """Whether a table would be a node too many: the input of the network takes nodes of its own.

    A 1 takes three nodes less than the table, and some 4 us more for one row of 24 steps. One direction has a node to
    spare, and matrices that are stored smaller take nodes anyway.
    """
    far = config.input == "features" and not _mean_in_bias(graph, config, weights)
    return not graph.stored and (config.input == "tokens" or (far and config.bidirectional))


def _one(graph: Graph, config: LSTMConfig) -> str:
    """[steps, directions, rows, 1]: 1 within a row's length, 0 behind.

    No operator makes a mask of lengths in one node but a recurrent one. This one reads nothing: tanh(30) is 1 in float32.
    """
    directions = config.directions
    parameters = {
        "W": np.zeros((directions, 1, config.layer_inputs(0)), np.float32),
        "R": np.zeros((directions, 1, 1), np.float32),
        "B": np.array([[30, 0]] * directions, np.float32),
    }
    return graph.add(
        "RNN",
        ["layer0_x", *(graph.constant(f"one_{kind}", array) for kind, array in parameters.items()), "lengths_int32"],
        "one",
        hidden_size=1,
        direction="bidirectional" if config.bidirectional else "forward",
    )


def _with_bias(
    config: LSTMConfig, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The head's weights with one more for each direction's 1: the bias for the last, 0 for one before it.

    So it is added last; sums that follow it would lose digits to it.
    """
    unused = np.zeros((len(bias), config.directions - 1))
    of_ones = np.split(np.column_stack([unused, bias]), config.directions, axis=1)
    by_direction = zip(np.split(weight, config.directions, axis=1), of_ones, strict=True)
    return np.concatenate([part for both in by_direction for part in both], axis=1)


def _states_in(graph: Graph, config: LSTMConfig) -> tuple[list[str], list[str]]:
    """h0 and c0, [rows, layers * directions, hidden] -> for each layer [directions, rows, hidden]."""
    if config.layers == 1:
        h0, c0 = (graph.add("Transpose", [name], f"layer0_{name}", perm=(1, 0, 2)) for name in ("h0", "c0"))
        return [h0], [c0]
    h0s, c0s = ([f"layer{layer}_{name}" for layer in range(config.layers)] for name in ("h0", "c0"))
    both = graph.add("Concat", ["h0", "c0"], "states", axis=1)  # together they take a node less
    graph.add("Split", [graph.add("Transpose", [both], "states_by_layer", perm=(1, 0, 2))], *h0s, *c0s, axis=0)
    return h0s, c0s


def _states_out(graph: Graph, hns: Sequence[str], cns: Sequence[str]) -> None:
    """hn and cn, for each layer [directions, rows, hidden] -> [rows, layers * directions, hidden]."""
    if len(hns) == 1:
        for source, name in ((*hns, "hn"), (*cns, "cn")):
            graph.add("Transpose", [source], name, perm=(1, 0, 2))
        return
    both = graph.add("Concat", [*hns, *cns], "new_states_by_layer", axis=0)
    graph.add("Split", [graph.add("Transpose", [both], "new_states", perm=(1, 0, 2))], "hn", "cn", axis=1)
