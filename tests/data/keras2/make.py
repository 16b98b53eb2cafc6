"""Makes models.tar.xz: small models as Keras 2 saves them, with what it answers to random inputs.

Run with TensorFlow and the package tf_keras, which is Keras 2 (2.21.0 made what is here): `python make.py models.tar.xz`.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers


def sequential() -> Any:
    """Trained for a step, so that the file holds the state of an optimizer."""
    stack = (layers.LSTM(4, input_shape=(None, 3), return_sequences=True), layers.Dropout(0.2), layers.LSTM(4))
    model = keras.Sequential([*stack, layers.Dense(2, activation="softmax")])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 7, 3)), np.zeros((2, 2)), verbose=0)
    return model


def functional() -> Any:
    x = keras.Input((None, 3), name="x")
    steps = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(layers.Masking(0.0)(x))
    return keras.Model(x, layers.TimeDistributed(layers.Dense(2))(layers.BatchNormalization()(steps)))


def tokens() -> Any:
    looked_up = layers.Embedding(11, 4, mask_zero=True, input_length=7)
    stack = (layers.SpatialDropout1D(0.1), layers.LSTM(4, dropout=0.1, recurrent_dropout=0.1))
    return keras.Sequential([looked_up, *stack, layers.Dense(1, activation="sigmoid")])


def stateful() -> Any:
    return keras.Sequential([layers.LSTM(4, stateful=True, batch_input_shape=(1, None, 3)), layers.Dense(2)])


def with_state() -> Any:
    x, h, c = keras.Input((None, 3), name="x"), keras.Input((4,), name="h0"), keras.Input((4,), name="c0")
    y, hn, cn = layers.LSTM(4, return_sequences=True, return_state=True)(x, initial_state=[h, c])
    return keras.Model([x, h, c], [layers.Dense(2)(y), hn, cn])


def operations() -> Any:
    x = keras.Input((None, 3), name="x")
    steps = layers.GRU(4, return_sequences=True)(x)
    return keras.Model(x, layers.Dense(2)(1.0 - steps[:, -1, :] * 2.0 + tf.reduce_mean(steps, axis=1)))


def hard() -> Any:
    """`hard_sigmoid` is another function in Keras 3."""
    stack = (keras.Input((None, 3)), layers.LSTM(4, recurrent_activation="hard_sigmoid"), layers.LeakyReLU(0.2))
    return keras.Sequential([*stack, layers.Dense(2)])


def nested() -> Any:
    x = keras.Input((None, 3), name="x")
    inner = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4)])
    return keras.Model(x, layers.Dense(2)(inner(x)))


def code() -> Any:
    return keras.Sequential([keras.Input((None, 3)), layers.Lambda(lambda x: x[:, -1]), layers.Dense(2)])


def save(folder: Path, name: str, model: Any, endings: tuple[str, ...]) -> None:
    generator, inputs = np.random.default_rng(0), []
    for tensor in model.inputs:
        sizes = [1 if name == "stateful" else 2, *(7 if size is None else size for size in tensor.shape[1:])]
        made = generator.integers(1, 11, sizes) if name == "tokens" else generator.normal(size=sizes)
        inputs.append(made.astype(np.float32))
    answers = model.predict_on_batch(inputs if len(inputs) > 1 else inputs[0])
    answers = answers if isinstance(answers, list) else [answers]
    model.reset_states()
    arrays = {f"in{i}": array for i, array in enumerate(inputs)} | {f"out{i}": a for i, a in enumerate(answers)}
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    for ending in endings:
        model.save(folder / f"{name}.{ending}")


def main(path: str) -> None:
    keras.utils.set_random_seed(1)
    both = ("h5", "keras")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for build in (sequential, functional, tokens, stateful, with_state, operations, hard, nested, code):
            model = build()
            save(folder, build.__name__, model, both if build in (sequential, functional, nested) else ("h5",))
        sequential().save_weights(folder / "weights.h5", save_format="h5")
        with tarfile.open(path, "w:xz") as archive:
            for file in sorted(folder.iterdir()):
                archive.add(file, file.name)


if __name__ == "__main__":
    main(sys.argv[1])
