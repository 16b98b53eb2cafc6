"""Weights as Keras 3 and Keras 2 have written them, read by what the file holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.legacy.saving import legacy_h5_format

from export.user_code.keras_part import Network, Refused, load_weights

# Of Keras itself, whenever it saves or reads a variable beside NumPy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def build(hidden: int = 5) -> Any:
    x = keras.Input((None, 8), name="x")
    steps = layers.Bidirectional(layers.LSTM(hidden, return_sequences=True))(x)
    return keras.Model(x, layers.TimeDistributed(layers.Dense(3))(layers.BatchNormalization()(steps)))


def keras3(model: Any, folder: Path) -> Path:
    model.save_weights(folder / "best.weights.h5")
    return folder / "best.weights.h5"


def whole(model: Any, folder: Path) -> Path:
    model.save(folder / "best.keras")
    return folder / "best.keras"


def keras2(model: Any, folder: Path) -> Path:
    with h5py.File(folder / "best.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return folder / "best.h5"


def keras2_under_the_new_name(model: Any, folder: Path) -> Path:
    return keras2(model, folder).rename(folder / "best.weights.h5")


def whole_of_keras2(model: Any, folder: Path) -> Path:
    with h5py.File(folder / "best.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file.create_group("model_weights"), model)
    return folder / "best.h5"


def keras2_from_2_12_on(model: Any, folder: Path) -> Path:
    path = keras3(model, folder)
    with h5py.File(path, "r+") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
    return path


def checkpoint(model: Any, folder: Path) -> Path:
    """As Keras 2 numbers and names them."""

    def kept(layer: Any) -> Any:
        return tf.train.Checkpoint(**{variable.name: variable.value for variable in layer.weights})

    _, recurrent, normed, each = model.layers
    directions = {
        name: tf.train.Checkpoint(cell=kept(getattr(recurrent, name).cell))
        for name in ("forward_layer", "backward_layer")
    }
    found = [tf.train.Checkpoint(**directions), kept(normed), tf.train.Checkpoint(layer=kept(each.layer))]
    root = tf.train.Checkpoint(**{f"layer_with_weights-{number}": layer for number, layer in enumerate(found)})
    root.write(str(folder / "best"))
    return folder / "best.index"


@pytest.mark.parametrize(
    "write", [keras3, whole, keras2, keras2_under_the_new_name, whole_of_keras2, keras2_from_2_12_on, checkpoint]
)
def test_weights_of_every_layout_are_taken_over(write: Callable[[Any, Path], Path], tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    trained = build()
    for variable in trained.weights:
        variable.assign(np.random.default_rng(variable.ndim).uniform(0.1, 1, variable.shape))
    other = build()
    load_weights(other, write(trained, tmp_path))
    for got, expected in zip(other.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(got.numpy(), expected.numpy())
    x = np.ones((2, 5, 8), np.float32)
    np.testing.assert_array_equal(other(x), trained(x))


@pytest.mark.parametrize("write", [keras3, whole, keras2, checkpoint])
def test_weights_of_another_model_are_refused(write: Callable[[Any, Path], Path], tmp_path: Path) -> None:
    path = write(build(hidden=6), tmp_path)
    with pytest.raises(Refused, match="does not fit the model: ") as refused:
        load_weights(build(), path)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    model = build()
    kept = {"layer_with_weights-1": tf.train.Checkpoint(gamma=model.layers[2].gamma.value)}
    tf.train.Checkpoint(**kept).write(str(tmp_path / "best"))
    with pytest.raises(Refused, match="it holds nothing for 11 of its weights"):
        load_weights(model, tmp_path / "best")


@pytest.mark.parametrize(
    ("name", "said"), [("nowhere.h5", "does not exist, or is no file"), ("best.pt", r"give what model\.save_weights\(")]
)
def test_what_are_no_weights(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "best.pt").touch()
    with pytest.raises(Refused, match=said):
        load_weights(build(), tmp_path / name)


def test_what_a_factory_may_give() -> None:
    with pytest.raises(Refused, match=r"^net:build gives a int; it must return a keras\.Model$"):
        Network(7, "net:build", None)
    with pytest.raises(Refused, match=r"is not built, so it has no weights yet: begin it with keras\.Input"):
        Network(keras.Sequential([layers.LSTM(4)]), "net:build", None)


def test_it_runs_by_the_names_of_its_inputs() -> None:
    network = Network(build(), "net:build", None)
    assert network.facts()["inputs"] == [("x", "float32", [-1, -1, 8])]
    _, answers = network.run({}, {"unused": np.zeros(1), "x": np.ones((2, 5, 8), np.float32)})
    assert [(name, answer.shape) for name, answer in answers.items()] == [("0", (2, 5, 3))]


class Halved(layers.Layer):  # type: ignore[misc]
    """Holds a float32 whatever its policy."""

    def call(self, x: Any) -> Any:
        return x * tf.constant(0.5, tf.float32)


def test_it_is_computed_in_float64_too() -> None:
    network = Network(build(), "theirs:build", None)
    x = np.random.default_rng(0).normal(size=(2, 7, 8)).astype(np.float32)
    header, arrays = network.run_float64({}, {"x": x})
    assert header == {"able": True}
    assert arrays["0"].dtype == np.float64
    usual = network.run({}, {"x": x})[1]["0"]
    assert 0 < np.abs(arrays["0"] - usual).max() < 1e-5
    assert keras.config.floatx() == "float32"


def test_what_cannot_be_computed_in_float64_says_so() -> None:
    x = keras.Input((None, 8), name="x")
    network = Network(keras.Model(x, Halved()(layers.LSTM(4)(x))), "theirs:build", None)
    assert network.run_float64({}, {"x": np.ones((1, 3, 8), np.float32)}) == ({"able": False}, {})
    assert keras.config.floatx() == "float32"


def test_the_graph_answers_as_the_model_does_for_every_number_of_rows_and_steps() -> None:
    """Keras's own `TimeDistributed` answers for as many steps as rows in a graph."""
    network = Network(build(), "theirs:build", None)
    assert network.trace({}, {}) == {"able": True}
    for rows, steps in ((3, 5), (1, 7)):
        x = np.random.default_rng(0).normal(size=(rows, steps, 8)).astype(np.float32)
        got, expected = (ask({}, {"x": x})[1]["0"] for ask in (network.run_traced, network.run))
        assert got.shape == (rows, steps, 3)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


class NotTraced(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x.numpy()

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


def test_what_cannot_be_traced_has_no_graph() -> None:
    x = keras.Input((None, 8), name="x")
    assert Network(keras.Model(x, NotTraced()(x)), "theirs:build", None).trace({}, {}) == {"able": False}
