"""Writes `model.savedmodel/`: a TensorFlow function with the signature `serving_default`, as TF Serving loads it.

A step-by-step loop costs TensorFlow some milliseconds a call; its fused `BlockLSTMV2` runs all steps of a layer inside
one operator. It knows no lengths and computes on behind the end of a row, so the state of a row is picked at its own
last step, and nothing that follows a row's end can reach what comes before it.

Source: https://www.tensorflow.org/api_docs/python/tf/raw_ops/BlockLSTMV2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export import canonical
from export.precision import Stored
from models.checkpoint import DIRECTIONS, Weights, weights_digest
from models.config import LSTMConfig

BACKEND = "saved_model"


def write(config: LSTMConfig, weights: Weights, path: Path, stored: Mapping[str, Stored] | None = None) -> None:
    """Writes the network to the folder `path`, with the inputs and outputs of `export.canonical`.

    Matrices in `stored` are constants of the graph, from which resources are made when the folder is loaded.

    Raises `OSError` when writing fails.
    """
    network = _Network(config, weights, stored or {})
    specs = {
        tensor.name: tf.TensorSpec([None if size == -1 else size for size in tensor.shape], tensor.dtype, tensor.name)
        for tensor in canonical.inputs(config)
    }
    # Not an attribute of the network: what is one is written a second time, under its own name.
    answer = tf.function(network.answer).get_concrete_function(**specs)
    try:
        tf.saved_model.save(network, str(path), signatures={"serving_default": answer})
    except tf.errors.OpError as error:
        raise OSError(f"{path} cannot be written: {error.message}") from error


class _Network(tf.Module):  # type: ignore[misc]
    """The canonical network; branches on `config` are taken while tracing."""

    def __init__(self, config: LSTMConfig, weights: Weights, stored: Mapping[str, Stored]) -> None:
        super().__init__(name="lstm")
        self._config = config
        digest = weights_digest(weights)
        self._weights = {
            name: _Restored([stored[name]], f"{digest}.{name}")
            if name in stored
            else tf.Variable(array, trainable=False, name=name)
            for name, array in weights.items()
            if not name.startswith("lstm.")
        }
        self._layers = [
            [
                {
                    "w": _kernel(weights, stored, f"lstm.{layer}.{direction}", digest),
                    "b": tf.Variable(_bias(weights, f"lstm.{layer}.{direction}"), trainable=False),
                }
                for direction in DIRECTIONS[: config.directions]
            ]
            for layer in range(config.layers)
        ]

    def answer(self, x: Any, lengths: Any, h0: Any, c0: Any) -> dict[str, Any]:
        config, weights = self._config, self._weights
        if config.input == "tokens":
            known = tf.clip_by_value(x, 0, config.vocabulary - 1)  # the padding may hold anything
            features = tf.gather(_read(weights["embedding"]), known)
        else:
            features = (x - weights["input.mean"]) / weights["input.scale"]
        source = tf.transpose(features, [1, 0, 2])  # [steps, rows, width]
        rows, steps = tf.size(lengths, tf.int64), tf.shape(x, tf.int64)[1]
        last = tf.stack([lengths - 1, _range(rows)], axis=1)  # where each row's last true step is in [steps, rows]
        h0s, c0s = tf.unstack(h0, axis=1), tf.unstack(c0, axis=1)
        hn, cn = [], []
        for layer, directions in enumerate(self._layers):
            hidden = []
            for direction, parameters in enumerate(directions):
                index = layer * config.directions + direction
                read = source if direction == 0 else _reverse(source, lengths)
                h, c = self._layer(steps, read, h0s[index], c0s[index], parameters)
                hn.append(tf.gather_nd(h, last))
                cn.append(tf.gather_nd(c, last))
                hidden.append(h if direction == 0 else _reverse(h, lengths))
            source = hidden[0] if len(hidden) == 1 else tf.concat(hidden, axis=2)
        if config.head == "values_per_step":
            y = self._values_per_step(tf.transpose(source, [1, 0, 2]), rows, steps, lengths)
        else:
            y = self._head(hn[-1] if config.directions == 1 else tf.concat(hn[-2:], axis=1))
        return {"y": y, "hn": tf.stack(hn, axis=1), "cn": tf.stack(cn, axis=1)}

    def _layer(self, steps: Any, source: Any, h0: Any, c0: Any, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
        """One direction of one layer: `h` and `c` after every step, each [steps, rows, hidden]."""
        peephole = np.zeros(self._config.hidden, np.float32)
        fused = tf.raw_ops.BlockLSTMV2(
            seq_len_max=steps,
            x=source,
            cs_prev=c0,
            h_prev=h0,
            w=_read(parameters["w"]),
            wci=peephole,
            wcf=peephole,
            wco=peephole,
            b=parameters["b"],
            cell_clip=0.0,
            use_peephole=False,
        )
        return fused.h, fused.cs

    def _head(self, read: Any) -> Any:
        """`y` of [any, directions * hidden]."""
        weights = self._weights
        logits = tf.matmul(read, _read(weights["head.weight"]), transpose_b=True) + weights["head.bias"]
        if self._config.head == "classification":
            return tf.nn.softmax(logits)
        return logits * weights["output.scale"] + weights["output.mean"]

    def _values_per_step(self, hidden: Any, rows: Any, steps: Any, lengths: Any) -> Any:
        """`y` of [rows, steps, directions * hidden], 0 behind a row's length."""
        config = self._config
        flat = tf.reshape(hidden, [-1, config.directions * config.hidden])
        values = tf.reshape(self._head(flat), tf.stack([rows, steps, tf.constant(config.outputs, tf.int64)]))
        within = tf.reshape(_range(steps), [-1, 1]) < tf.reshape(lengths, [-1, 1, 1])  # [rows, steps, 1]
        return tf.where(within, values, 0.0)


def _range(count: Any) -> Any:
    return tf.range(tf.constant(0, tf.int64), count, tf.constant(1, tf.int64))


class _Restored(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
    """A float32 matrix that is made, when a SavedModel is loaded, of what it keeps: blocks one below the other.

    `name` must tell its content: whatever is loaded into one process shares resources of one name.
    """

    def __init__(self, blocks: Sequence[Stored], name: str, transpose: bool = False) -> None:
        super().__init__()
        self._blocks = blocks
        self._name = name
        self._transpose = transpose
        restored = [block.restored().T if transpose else block.restored() for block in blocks]
        self._shape = np.concatenate(restored).shape
        self._initialize()

    def _create_resource(self) -> Any:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=self._shape, shared_name=self._name)

    def _initialize(self) -> None:
        parts = []
        for block in self._blocks:
            full = tf.cast(tf.constant(block.array), tf.float32)
            full = full if block.scale is None else full * tf.constant(block.scale)
            parts.append(tf.transpose(full) if self._transpose else full)
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=tf.concat(parts, axis=0))

    def read(self) -> Any:
        matrix = tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=tf.float32)
        matrix.set_shape(self._shape)
        return matrix


def _read(weight: Any) -> Any:
    return weight.read() if isinstance(weight, _Restored) else weight


def _kernel(weights: Weights, stored: Mapping[str, Stored], prefix: str, digest: str) -> Any:
    """What `_matrix` gives, as a variable or as a resource."""
    if not stored:
        return tf.Variable(_matrix(weights, prefix), trainable=False)
    blocks = [stored[f"{prefix}.{kind}"] for kind in ("weight_input", "weight_hidden")]
    return _Restored(blocks, f"{digest}.{prefix}", transpose=True)


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
