"""What Keras 2 has saved, whole models in .h5 or .keras, rebuilt in Keras 3.

The configuration in the file is written anew in Keras 3's form. What only training uses is left out (initial values,
penalties, limits); so is what Keras 3 does not know, where its value says that nothing is done. What remains is an
error that names layer, keyword and value.
"""

from __future__ import annotations

import inspect
import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras

from export.errors import ExportError
from export.sources import keras2_layers
from export.sources.keras2_calls import MODELS, OPERATIONS, Config, call, ids_are_whole, keeps_its_input, one_or_all
from export.user_code import keras_part

_ZIP_CONFIG, _ZIP_METADATA, _ZIP_WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_FOR_TRAINING = ("_initializer", "_regularizer", "_constraint")
_ANY = object()
# Keywords that a layer of Keras 2 keeps and Keras 3 does not take, and the value with which they change nothing.
_NOTHING_DONE = {
    "time_major": False,
    "ragged": False,
    "sparse": False,
    "causal": False,
    "renorm": False,
    "softmax_robust_masking": False,
    "groups": 1,
    "noise_shape": None,
    "virtual_batch_size": None,
    "adjustment": None,
    **dict.fromkeys(
        ("batch_input_shape", "build_input_shape", "fused", "implementation", "init", "input_dim", "input_dtype", "input_length",
         "input_shape", "optional", "renorm_clipping", "renorm_momentum", "seed", "trainable", "type_spec"),
        _ANY,
    ),
    **dict.fromkeys(("query_shape", "key_shape", "value_shape", "build_config"), _ANY),
}  # fmt: skip
_RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}, "InputLayer": {"batch_input_shape": "batch_shape"}}
_CLASSES = {"BatchNormalizationV1": "BatchNormalization", "SyncBatchNormalization": "BatchNormalization"}


def version_of(path: Path) -> str:
    """The version of Keras that has saved the model, "" where the file does not say."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if _ZIP_METADATA not in archive.namelist():
                return ""
            return str(json.loads(archive.read(_ZIP_METADATA)).get("keras_version", ""))
    if not h5py.is_hdf5(path):
        return ""
    with h5py.File(path) as file:
        group = file if "keras_version" in file.attrs else file.get("model_weights", file)
        return _text(group.attrs.get("keras_version", ""))


def is_weights_alone(path: Path) -> bool:
    """Whether the file is HDF5 without a model's configuration."""
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        return "model_config" not in file.attrs


def load(path: Path) -> Any:
    """The model. Raises `ExportError` for what Keras 3 has no equal of, and whatever Keras raises."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            model = _built(json.loads(archive.read(_ZIP_CONFIG)))
    else:
        with h5py.File(path) as file:
            model = _built(json.loads(_text(file.attrs["model_config"])))
    _load_weights(model, path)
    return model


def _load_weights(model: Any, path: Path) -> None:
    """A .keras of 2.12 and 2.13 holds them under another name, which `keras_part` knows where they are a file of their own."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open(_ZIP_WEIGHTS) as inside, h5py.File(inside) as file:
            old = keras_part.KERAS2_DEPENDENCIES in file
        if old:
            with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
                keras_part.load_weights(model, Path(archive.extract(_ZIP_WEIGHTS, folder)))
            return
    keras_part.load_weights(model, path)


def _text(said: Any) -> str:
    return said.decode() if isinstance(said, bytes) else str(said)


def _built(config: Config) -> Any:
    return keras.saving.deserialize_keras_object(_layer(config), safe_mode=True)


def _layer(stored: Config) -> Config:
    """One layer or model in Keras 3's form: its class, what it is made with, and, within a model, what it is called on."""
    kind = str(_CLASSES.get(stored["class_name"], stored["class_name"]))
    if kind in MODELS:
        return {"registered_name": None, **_model(kind, stored["config"])}
    config: Config = dict(stored["config"])
    if kind in OPERATIONS:
        config = {"function": config["function"], "name": config["name"]}
        made = {"module": None, "registered_name": f"{keras2_layers.PACKAGE}>TensorFlowOperation"}
        if config["function"] not in keras2_layers.OPERATIONS:
            raise ExportError(
                f"the operation tf.{config['function']} ({config['name']}) is none of those that can be taken over"
            )
        return {"class_name": "TensorFlowOperation", "config": config, **made}
    if kind == "Lambda" or not inspect.isclass(getattr(keras.layers, kind, None)):
        raise ExportError(
            f"the layer {config.get('name', kind)} is a {kind}, which {_WHY.get(kind, 'Keras 3 does not have')}"
        )
    return {
        "class_name": kind,
        "module": "keras.layers",
        "registered_name": None,
        "config": _keywords(kind, config),
    }


_WHY = {"Lambda": "is code of its own and is not run"}


def _keywords(kind: str, config: Config) -> Config:
    """What a layer of Keras 3 is made with. Raises `ExportError` where it does not take what Keras 2 has kept."""
    name = config.get("name", kind)
    taken = _taken_by(getattr(keras.layers, kind))
    if kind == "GRU":
        config.setdefault("reset_after", False)  # as it was before there was a choice
    made = {}
    for was, value in config.items():
        key = _RENAMED.get(kind, {}).get(was, was)
        if key.endswith(_FOR_TRAINING):
            continue
        if key not in taken:
            if _NOTHING_DONE.get(key, name) not in (_ANY, value):
                raise ExportError(f"the layer {name} ({kind}) has {key} = {value!r}, which Keras 3 cannot do")
            continue
        made[key] = _value(kind, key, value)
    return made


def _value(kind: str, key: str, value: Any) -> Any:
    if key == "dtype":
        return value if value is None or isinstance(value, str) else value["config"]["name"]
    if key.endswith("activation"):
        return _activation(value)
    if key == "axis" and isinstance(value, list) and kind != "LayerNormalization":
        return value[0] if len(value) == 1 else value
    if isinstance(value, dict) and "class_name" in value:
        return _layer(value)
    if key == "cells":
        return [_layer(cell) for cell in value]
    return value


def _activation(value: Any) -> Any:
    name = value.get("config") if isinstance(value, dict) else value
    if name == "hard_sigmoid":
        registered = f"{keras2_layers.PACKAGE}>hard_sigmoid"
        return {"module": None, "class_name": "function", "config": registered, "registered_name": registered}
    return value if isinstance(name, dict) else name


def _taken_by(layer: Any) -> set[str]:
    """The keywords with which a layer is made, those of its base classes where it hands on what it does not know."""
    taken: set[str] = set()
    for each in inspect.getmro(layer):
        if "__init__" not in vars(each):
            continue
        parameters = inspect.signature(vars(each)["__init__"]).parameters
        taken |= {name for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
            break
    return taken - {"self"}


def _model(kind: str, config: Any) -> Config:
    config = {"name": "model", "layers": config} if isinstance(config, list) else dict(config)  # a list before 2.2.3
    layers = ids_are_whole(config["layers"])
    if kind == "Sequential":
        if layers and layers[0]["class_name"] not in ("InputLayer", *MODELS):
            layers = [_input_of(layers[0]), *layers]
        made = {"name": config["name"], "layers": [_layer(layer) for layer in layers]}
        return {"module": "keras", "class_name": "Sequential", "config": made}
    first = {layer["name"]: int(keeps_its_input(layer)) for layer in layers}
    made = {
        "name": config["name"],
        "trainable": config.get("trainable", True),
        "layers": [_called(first, layer) for layer in layers],
        "input_layers": one_or_all(first, config["input_layers"]),
        "output_layers": one_or_all(first, config["output_layers"]),
    }
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": made}


def _called(first: Mapping[str, int], layer: Config) -> Config:
    calls = [call(first, layer, node) for node in layer["inbound_nodes"]]
    return {**_layer(layer), "name": layer["name"], "inbound_nodes": calls}


def _input_of(first: Config) -> Config:
    """The input that a Sequential model leaves unsaid where its first layer states the shape."""
    config = first["config"]
    shape = config.get("batch_input_shape") or first.get("build_config", {}).get("input_shape")
    if shape is None:
        raise ExportError("the model was saved before it knew the shape of its input")
    dtype = "int32" if first["class_name"] == "Embedding" else "float32"
    return {
        "class_name": "InputLayer",
        "config": {"batch_input_shape": shape, "dtype": dtype, "name": f"{config['name']}_input"},
    }
