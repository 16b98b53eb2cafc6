"""A user's Keras model, in the child process: takes weights over, saves it, and where that is not enough runs and writes it.

Imports nothing of ours; see `program`. Weights are read by what the file holds, not by its name: Keras 3 writes
`.weights.h5`, Keras 2 wrote another layout under `.h5` (until 2.12 under `.weights.h5` too) or a checkpoint of TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

Arrays = Mapping[str, npt.NDArray[Any]]
Header = Mapping[str, Any]

_FLOATS = ("float16", "bfloat16", "float32", "mixed_float16", "mixed_bfloat16")
KERAS2_DEPENDENCIES = "_layer_checkpoint_dependencies"  # where Keras 2.12 to 2.15 has what Keras 3 calls layers
_IN_CHECKPOINT = re.compile(r"(\w+/)?layer_with_weights-(?P<layer>\d+)/(?P<inside>[\w/]+)/\.ATTRIBUTES/VARIABLE_VALUE")


class Refused(Exception):
    """What cannot be exported; the message is a sentence for people."""


class Network:
    """What the factory of `where` has given, with these weights. Methods but `facts` take header and arrays.

    Arrays go in by the names of the model's inputs, and come out as "0", "1", ...
    """

    def __init__(self, made: object, where: str, weights: str | None) -> None:
        if not isinstance(made, keras.Model):
            raise Refused(f"{where} gives a {type(made).__name__}; it must return a keras.Model")
        if weights:
            load_weights(made, Path(weights))
        if not made.built:
            raise Refused(
                f"{where} gives a model that is not built, so it has no weights yet: begin it with keras.Input(...), or call it "
                "once in FACTORY"
            )
        self.model: Any = made
        self._graph: Callable[..., list[Any]] | None = None

    def facts(self) -> Header:
        """A `digest` of its weights, and its `inputs`."""
        return {"digest": digest(self.model), "inputs": inputs(self.model)}

    def after(self) -> Header:
        """What goes with every answer: nothing."""
        return {}

    def save(self, header: Header, arrays: Arrays) -> Header:
        """Saves it as the file header["path"], a `.keras`."""
        self.model.save(header["path"])
        return {}

    def run(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        answers = flat(self.model, [tf.constant(arrays[tensor.name]) for tensor in self.model.inputs])
        return {}, {str(number): np.asarray(tensor) for number, tensor in enumerate(answers)}

    def trace(self, header: Header, arrays: Arrays) -> Header:
        """Makes the graph that `run_traced` runs; `able` is false where there is none."""
        self._graph = graph(self.model)
        return {"able": self._graph is not None}

    def run_traced(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """As `run`, by the graph."""
        assert self._graph
        answers = self._graph(*(tf.constant(arrays[tensor.name]) for tensor in self.model.inputs))
        return {}, {str(number): np.asarray(tensor) for number, tensor in enumerate(answers)}

    def run_float64(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """As `run`, in float64; `able` is false where the model cannot."""
        answers = in_float64(self.model, arrays)
        return {"able": answers is not None}, {str(number): array for number, array in enumerate(answers or [])}

    def write(self, header: Header, arrays: Arrays) -> Header:
        """Writes it as the SavedModel header["path"], its answers by the names of header["outputs"]."""
        save(self.model, header["outputs"], header["path"])
        return {}


def inputs(model: Any) -> list[tuple[str, str, list[int]]]:
    """Name, datatype of NumPy and shape of each input, -1 where a size is free; none of a model that does not know its own."""
    found = getattr(model, "inputs", None) or []
    return [(tensor.name, tensor.dtype, [-1 if size is None else size for size in tensor.shape]) for tensor in found]


def flat(model: Any, tensors: Sequence[Any]) -> list[Any]:
    """What a model answers in evaluation mode, nested answers flattened."""
    structure = tensors[0] if len(tensors) == 1 else list(tensors)
    return list(tf.nest.flatten(model(structure, training=False)))


def in_float64(model: Any, arrays: Arrays) -> list[npt.NDArray[Any]] | None:
    """Its answers in float64, by the names of its inputs; None where it cannot be built so."""
    usual = keras.config.floatx()
    try:
        keras.config.set_floatx("float64")  # for what it makes itself, as a first state
        made = keras.saving.deserialize_keras_object(_widened(keras.saving.serialize_keras_object(model)))
        made.set_weights([array.astype(np.float64) for array in model.get_weights()])
        sent = [arrays[tensor.name] for tensor in model.inputs]
        tensors = [tf.constant(array.astype(np.float64) if array.dtype.kind == "f" else array) for array in sent]
        return [np.asarray(tensor) for tensor in flat(made, tensors)]
    except Exception:  # noqa: BLE001 - a layer of the user's own, a float32 of its own, too little memory: it cannot
        return None
    finally:
        keras.config.set_floatx(usual)


def _widened(config: Any) -> Any:
    """What describes a model, with float64 wherever a datatype or a policy is of floats."""
    if isinstance(config, dict) and config.get("class_name") in ("DTypePolicy", "FloatDTypePolicy"):
        return "float64"
    if isinstance(config, dict):
        return {
            key: "float64" if key == "dtype" and value in _FLOATS else _widened(value) for key, value in config.items()
        }
    return [_widened(part) for part in config] if isinstance(config, list) else config


def graph(model: Any) -> Callable[..., list[Any]] | None:
    """What `save` writes, as a function of tensors; None where it cannot be traced.

    An LSTM layer of Keras that is called as it is goes through its steps in Python, which takes ten times as long.
    """

    @tf.function(input_signature=_signature(model))  # type: ignore[untyped-decorator]
    def answer(*tensors: Any) -> list[Any]:
        return flat(model, list(tensors))

    try:
        with _steps_told_apart():
            made: Callable[..., list[Any]] = answer.get_concrete_function()
    except Exception:  # noqa: BLE001 - whatever a user's layer raises; `save` raises it again, where it is told
        return None
    return made


def _signature(model: Any) -> list[Any]:
    return [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs]


def save(model: Any, outputs: Sequence[str], path: str) -> None:
    """Writes a SavedModel whose signature has the names of the model's inputs and these of its outputs."""

    @tf.function(input_signature=_signature(model))  # type: ignore[untyped-decorator]
    def answer(*tensors: Any) -> dict[str, Any]:
        return {name: tf.identity(t) for name, t in zip(outputs, flat(model, list(tensors)), strict=True)}

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]  # what TensorFlow itself keeps
    module.answer = answer
    with _steps_told_apart():
        tf.saved_model.save(module, path, signatures={"serving_default": answer})


@contextlib.contextmanager
def _steps_told_apart() -> Iterator[None]:
    """Lets `TimeDistributed` take rows and steps as so many rows while a graph is made.

    Keras 3.15 goes as often through a sequence of unknown length as there are rows (`layers/rnn/time_distributed.py`
    asks for the shape before it turns the axes), so that the graph answers for as many steps as rows.
    """

    def call(layer: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        asked = {"training": training} if layer.layer._call_has_training_arg else {}
        if mask is not None and layer.layer._call_has_mask_arg:
            asked["mask"] = _merged(mask)
        answer = layer.layer.call(_merged(inputs), **asked)
        apart = tf.reshape(answer, tf.concat([tf.shape(inputs)[:2], tf.shape(answer)[1:]], 0))
        return tf.ensure_shape(apart, [*inputs.shape[:2], *answer.shape[1:]])

    kept = keras.layers.TimeDistributed.call
    keras.layers.TimeDistributed.call = call
    try:
        yield
    finally:
        keras.layers.TimeDistributed.call = kept


def _merged(tensor: Any) -> Any:
    """The first two axes as one."""
    shape = tf.shape(tensor)
    return tf.ensure_shape(
        tf.reshape(tensor, tf.concat([[shape[0] * shape[1]], shape[2:]], 0)), [None, *tensor.shape[2:]]
    )


def digest(model: Any) -> str:
    """SHA-256 (hex) of paths, shapes and bytes of all weights."""
    made = hashlib.sha256()
    for variable in model.variables:
        made.update(f"{variable.path} {tuple(variable.shape)}\n".encode())
        made.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return made.hexdigest()


def load_weights(model: Any, path: Path) -> None:
    """Takes weights over: an `.h5` of Keras 3 or 2, a `.keras`, a checkpoint of TensorFlow by its `.index`. Raises `Refused`."""
    checkpoint = path.with_suffix("") if path.suffix == ".index" else path
    if Path(f"{checkpoint}.index").is_file():
        _load_checkpoint(model, checkpoint)
        return
    if not path.is_file():
        raise Refused(f"{path} does not exist, or is no file")
    if path.suffix not in (".h5", ".hdf5", ".keras"):
        raise Refused(f"{path} cannot be read as weights: give what model.save_weights('best.weights.h5') writes")
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.load_weights(_as_keras_names_it(path, Path(folder)))
        except Exception as error:
            raise Refused(f"{path} does not fit the model: {' '.join(str(error).split())}") from error


def _load_checkpoint(model: Any, path: Path) -> None:
    """Keras 2 numbers the layers that have weights, and names what is inside them by the attributes that hold it."""
    layers = [layer for layer in model.layers if layer.weights]
    waiting = {id(variable) for layer in layers for variable in layer.weights}
    try:
        reader = tf.train.load_checkpoint(str(path))
        for key in reader.get_variable_to_shape_map():
            if not (found := _IN_CHECKPOINT.fullmatch(key)):
                continue  # the optimizer's
            held = layers[int(found["layer"])]
            for name in found["inside"].split("/"):
                held = getattr(held, name)
            held.assign(reader.get_tensor(key))
            waiting.discard(id(held))
    except Exception as error:
        raise Refused(f"{path} does not fit the model: {type(error).__name__}: {error}") from error
    if waiting:
        raise Refused(f"{path} does not fit the model: it holds nothing for {len(waiting)} of its weights")


def _as_keras_names_it(path: Path, folder: Path) -> str:
    """A path of the same content, whose name tells Keras which layout it has."""
    if path.suffix == ".keras":
        return str(path)
    with h5py.File(path) as file:
        old = "layer_names" in file.attrs or "model_weights" in file
        renamed = KERAS2_DEPENDENCIES in file
    named = folder / ("old.h5" if old else "new.weights.h5")
    if renamed:
        named.write_bytes(path.read_bytes())
        with h5py.File(named, "r+") as file:
            file.move(KERAS2_DEPENDENCIES, "layers")
    else:
        named.symlink_to(path.absolute())
    return str(named)
