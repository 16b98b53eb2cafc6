"""Writes `model.savedmodel/`: a TensorFlow function with the signature `serving_default`, as TF Serving loads it.

One fact that surprises: a step-by-step loop costs TensorFlow some milliseconds a call; its fused `BlockLSTMV2` runs all
steps of a layer inside one operator. It knows no lengths and computes on behind the end of a row, so the state of a row
is picked at its own last step, and nothing that follows a row's end can reach what comes before it.

Source: https://www.tensorflow.org/api_docs/python/tf/raw_ops/BlockLSTMV2
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export import signature
from models.checkpoint import DIRECTIONS, Weights
from models.config import LSTMConfig

BACKEND = "saved_model"


def write(config: LSTMConfig, weights: Weights, path: Path) -> None:
    """Writes the network to the folder `path`, with the inputs and outputs of `export.signature`.

    Raises `OSError` when writing fails.
    """
    network = _Network(config, weights)
    specs = {
        tensor.name: tf.TensorSpec([None if size == -1 else size for size in tensor.shape], tensor.dtype, tensor.name)
        for tensor in signature.inputs(config)
    }
    concrete = network.answer.get_concrete_function(**specs)
    try:
        tf.saved_model.save(network, str(path), signatures={"serving_default": concrete})
    except tf.errors.OpError as error:
        raise OSError(f"{path} cannot be written: {error.message}") from error


class _Network(tf.Module):  # type: ignore[misc]
    """The canonical network; branches on `config` are taken while tracing."""

    def __init__(self, config: LSTMConfig, weights: Weights) -> None:
        super().__init__(name="lstm")
        self._config = config
        self._weights = {
            name: tf.Variable(array, trainable=False, name=name)
            for name, array in weights.items()
            if not name.startswith("lstm.")
        }
        self._layers = [
            [
                {
                    "w": tf.Variable(_matrix(weights, f"lstm.{layer}.{direction}"), trainable=False),
                    "b": tf.Variable(_bias(weights, f"lstm.{layer}.{direction}"), trainable=False),
                }
                for direction in DIRECTIONS[: config.directions]
            ]
            for layer in range(config.layers)
        ]

    @tf.function  # type: ignore[untyped-decorator]
    def answer(self, x: Any, lengths: Any, h0: Any, c0: Any) -> dict[str, Any]:
        config, weights = self._config, self._weights
        if config.input == "tokens":
            known = tf.clip_by_value(x, 0, config.vocabulary - 1)  # the padding may hold anything
            features = tf.gather(weights["embedding"], known)
        else:
            features = (x - weights["input.mean"]) / weights["input.scale"]
        steps = tf.transpose(features, [1, 0, 2])  # [steps, rows, width]
        rows = tf.shape(lengths, out_type=tf.int64)[0]
        last = tf.stack([lengths - 1, tf.range(rows)], axis=1)  # where each row's last true step is in [steps, rows]
        hn, cn = [], []
        for layer, directions in enumerate(self._layers):
            hidden = []
            for direction, parameters in enumerate(directions):
                index = layer * config.directions + direction
                source = steps if direction == 0 else _reverse(steps, lengths)
                h, c = _layer(source, h0[:, index], c0[:, index], parameters)
                hn.append(tf.gather_nd(h, last))
                cn.append(tf.gather_nd(c, last))
                hidden.append(h if direction == 0 else _reverse(h, lengths))
            steps = hidden[0] if len(hidden) == 1 else tf.concat(hidden, axis=2)
        final = tf.concat(hn[-config.directions :], axis=1)
        return {"y": self._head(steps, final, lengths), "hn": tf.stack(hn, axis=1), "cn": tf.stack(cn, axis=1)}

    def _head(self, steps: Any, final: Any, lengths: Any) -> Any:
        """`y` from the last layer's steps [steps, rows, directions * hidden] or from its last states."""
        config, weights = self._config, self._weights
        if config.head == "values_per_step":
            final = tf.transpose(steps, [1, 0, 2])
        logits = tf.tensordot(final, weights["head.weight"], [[-1], [1]]) + weights["head.bias"]
        if config.head == "classification":
            return tf.nn.softmax(logits)
        values = logits * weights["output.scale"] + weights["output.mean"]
        if config.head == "values":
            return values
        within = tf.range(tf.shape(steps, out_type=tf.int64)[0]) < lengths[:, None]  # [rows, steps]
        return tf.where(within[:, :, None], values, 0.0)


def _layer(steps: Any, h0: Any, c0: Any, parameters: dict[str, Any]) -> tuple[Any, Any]:
    """One direction of one layer: `h` and `c` after every step, each [steps, rows, hidden]."""
    peephole = tf.zeros_like(parameters["b"][: h0.shape[1]])
    fused = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.shape(steps, out_type=tf.int64)[0],
        x=steps,
        cs_prev=c0,
        h_prev=h0,
        w=parameters["w"],
        wci=peephole,
        wcf=peephole,
        wco=peephole,
        b=parameters["b"],
        cell_clip=0.0,
        use_peephole=False,
    )
    return fused.h, fused.cs


def _reverse(steps: Any, lengths: Any) -> Any:
    """The true steps of every row back to front; what lies behind them stays where it is."""
    return tf.reverse_sequence(steps, lengths, seq_axis=0, batch_axis=1)


def _matrix(weights: Weights, prefix: str) -> npt.NDArray[np.float32]:
    """[inputs + hidden, 4 * hidden]: one product for what comes from below and from the step before.

    The gates stay in our order: unlike the first `BlockLSTM`, the second takes input, forget, cell, output.
    """
    both = np.concatenate([weights[f"{prefix}.weight_input"], weights[f"{prefix}.weight_hidden"]], axis=1)
    return np.ascontiguousarray(both.T)


def _bias(weights: Weights, prefix: str) -> npt.NDArray[np.float32]:
    bias: npt.NDArray[np.float32] = weights[f"{prefix}.bias_input"] + weights[f"{prefix}.bias_hidden"]
    return bias
