"""The network of an `LSTMConfig` in Keras (on TensorFlow), and the reader between it and the canonical weights.

A Keras LSTM has one bias where the canonical layout has two. Loading adds the two, reading leaves the second one 0; so
Keras -> canonical -> Keras is exact, and canonical -> Keras -> canonical keeps the sum.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.checkpoint import DIRECTIONS, Weights, check_weights
from models.config import LSTMConfig
from models.inputs import INPUTS, OUTPUTS, Arrays, complete

Variable = Any  # a keras.Variable; Keras ships no types
Tensor = Any  # a tf.Tensor, likewise


class KerasLSTM(keras.layers.Layer):  # type: ignore[misc]
    """A stack of LSTM layers with one head; see `models.networks.Network` for what it offers outside training.

    It is a `Layer`, not a `Model`, because `Model.predict` means something else. Calling it returns the head's linear
    output (logits, or values in standardised units), which is what a loss wants; `answer` and `predict` return
    probabilities and raw units.
    """

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.config = config
        if config.input == "tokens":
            self.embedding = keras.layers.Embedding(config.vocabulary, config.embedding)
            self.embedding.build()
        else:
            self.input_mean = self._constant(config.features, "zeros")
            self.input_scale = self._constant(config.features, "ones")
        self.cells: list[Any] = []  # index layer * directions + direction, like the state
        for layer in range(config.layers):
            for direction in DIRECTIONS[: config.directions]:
                cell = keras.layers.LSTM(
                    config.hidden, return_sequences=True, return_state=True, go_backwards=direction == "backward"
                )
                cell.build((None, None, config.layer_inputs(layer)))
                self.cells.append(cell)
        self.dropouts = [keras.layers.Dropout(config.dropout) for _ in range(config.layers)]
        self.head = keras.layers.Dense(config.outputs)
        self.head.build((None, config.hidden * config.directions))
        if config.head != "classification":
            self.output_mean = self._constant(config.outputs, "zeros")
            self.output_scale = self._constant(config.outputs, "ones")
        self.built = True
        x = (None, None, config.features) if config.input == "features" else (None, None)
        state = tf.TensorSpec((None, len(self.cells), config.hidden), tf.float32)
        self._compiled = tf.function(
            functools.partial(self.answer),  # a plain method is counted as retraced by every network that has one
            input_signature=[
                tf.TensorSpec(x, tf.float32 if config.input == "features" else tf.int64),
                tf.TensorSpec((None,), tf.int64),
                state,
                state,
            ],
        )

    def call(
        self, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The canonical inputs -> the head's linear output, `hn`, `cn`; the output is not masked in the padding."""
        mask = tf.sequence_mask(lengths, tf.shape(x)[1])  # [rows, steps]
        if self.config.input == "tokens":
            inputs = self.embedding(tf.where(mask, x, 0))
        else:
            inputs = tf.where(mask[:, :, None], (x - self.input_mean) / self.input_scale, 0.0)
        hn, cn = [], []
        for layer, dropout in enumerate(self.dropouts):
            outputs = []
            for direction in range(self.config.directions):
                index = layer * self.config.directions + direction
                sequence, h, c = self.cells[index](inputs, initial_state=[h0[:, index], c0[:, index]], mask=mask)
                outputs.append(tf.reverse(sequence, axis=[1]) if direction else sequence)  # Keras leaves it backwards
                hn.append(h)
                cn.append(c)
            last = tf.concat(hn[-self.config.directions :], axis=-1)
            inputs = dropout(tf.concat(outputs, axis=-1), training=training)  # [rows, steps, hidden * directions]
        if self.config.head != "values_per_step":
            inputs = self.dropouts[-1](last, training=training)
        return self.head(inputs), tf.stack(hn, axis=1), tf.stack(cn, axis=1)

    def answer(self, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The canonical inputs -> the canonical outputs `y`, `hn`, `cn`."""
        linear, hn, cn = self(x, lengths, h0, c0)
        if self.config.head == "classification":
            return tf.nn.softmax(linear), hn, cn
        y = linear * self.output_scale + self.output_mean
        if self.config.head == "values_per_step":
            y = tf.where(tf.sequence_mask(lengths, tf.shape(x)[1])[:, :, None], y, 0.0)
        return y, hn, cn

    def predict(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See `models.networks.Network.predict`."""
        completed = complete(self.config, inputs)
        outputs = self._compiled(*(tf.constant(completed[name]) for name in INPUTS))
        return {name: output.numpy() for name, output in zip(OUTPUTS, outputs, strict=True)}

    def canonical_weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """See `models.networks.Network.canonical_weights`."""
        weights = {name: variable.numpy().copy() for name, variable in self._plain_variables().items()}
        weights["head.weight"] = _transposed(self.head.kernel.numpy())
        for prefix, cell in self._named_cells().items():
            weights[f"{prefix}.weight_input"] = _transposed(cell.cell.kernel.numpy())
            weights[f"{prefix}.weight_hidden"] = _transposed(cell.cell.recurrent_kernel.numpy())
            weights[f"{prefix}.bias_input"] = cell.cell.bias.numpy().copy()
            weights[f"{prefix}.bias_hidden"] = np.zeros_like(weights[f"{prefix}.bias_input"])
        return weights

    def load_canonical(self, weights: Weights) -> None:
        """See `models.networks.Network.load_canonical`."""
        check_weights(self.config, weights)
        for name, variable in self._plain_variables().items():
            variable.assign(weights[name])
        self.head.kernel.assign(weights["head.weight"].T)
        for prefix, cell in self._named_cells().items():
            cell.cell.kernel.assign(weights[f"{prefix}.weight_input"].T)
            cell.cell.recurrent_kernel.assign(weights[f"{prefix}.weight_hidden"].T)
            cell.cell.bias.assign(weights[f"{prefix}.bias_input"] + weights[f"{prefix}.bias_hidden"])

    def _named_cells(self) -> dict[str, Any]:
        directions = DIRECTIONS[: self.config.directions]
        prefixes = [f"lstm.{layer}.{direction}" for layer in range(self.config.layers) for direction in directions]
        return dict(zip(prefixes, self.cells, strict=True))

    def _plain_variables(self) -> dict[str, Variable]:
        """What has the same shape in Keras and in a checkpoint, under its name in a checkpoint."""
        variables = {"head.bias": self.head.bias}
        if self.config.input == "tokens":
            variables["embedding"] = self.embedding.embeddings
        else:
            variables |= {"input.mean": self.input_mean, "input.scale": self.input_scale}
        if self.config.head != "classification":
            variables |= {"output.mean": self.output_mean, "output.scale": self.output_scale}
        return variables

    def _constant(self, width: int, initializer: str) -> Variable:
        return self.add_weight(shape=(width,), initializer=initializer, trainable=False)


def _transposed(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(array.T)
