"""Keras models as a user's code builds them, for the tests of `lstm-export keras MODULE:FACTORY`."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


def plain() -> Any:
    return keras.Sequential([keras.Input((None, 8), name="x"), layers.LSTM(16), layers.Dense(3)])


def without_names() -> Any:
    return keras.Sequential([keras.Input((None, 8)), layers.LSTM(16), layers.Dense(3)])


class Doubled(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return 2 * x


def with_a_layer_of_its_own() -> Any:
    return keras.Sequential([keras.Input((None, 8), name="x"), Doubled(), layers.LSTM(16), layers.Dense(3)])


def with_a_function_of_its_own() -> Any:
    """A Lambda is code, which is run in the child alone."""
    twice = layers.Lambda(lambda x: 2 * x, output_shape=(None, 8))
    return keras.Sequential([keras.Input((None, 8), name="x"), twice, layers.LSTM(16), layers.Dense(3)])


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = layers.LSTM(16), layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.out(self.rnn(x))


def without_inputs() -> Any:
    model = Subclassed()
    model(ops.ones((1, 3, 8)))
    return model


def with_inputs() -> Any:
    x = keras.Input((None, 8), name="x")
    return keras.Model(x, Subclassed()(x))


class InNumPy(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * float(x[0, 0, 0])

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


def with_a_number_of_python() -> Any:
    return keras.Sequential([keras.Input((None, 8), name="x"), InNumPy(), layers.LSTM(16), layers.Dense(3)])
