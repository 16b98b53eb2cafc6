"""Brings a Keras model (Sequential or functional) into a model repository: by our writers if it is a plain LSTM, else by Keras.

`plain_keras` decides whether it is plain. Keras rebuilds its own layers from a file, but no layer of the user's, not even
a registered one. A model with such a layer has to come as a SavedModel that the user writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export import formats
from export.errors import ExportError
from export.publish import publish
from export.sources import keras2_files, own_signature, plain
from export.sources.own_signature import Advice
from export.sources.plain_keras import recognise
from export.versions import Target, Version
from models.checkpoint import Checkpoint
from serving.backends.base import trimmed
from serving.signature.spec import ModelSpec
from serving.signature.tensors import DTYPES, Tensors
from serving.verification import inspection
from serving.verification.hints import Hints

_WEIGHTS = "weights need the code that makes it: lstm-export keras MODULE:FACTORY --weights FILE"
_ELSEWHERE = "write it as a SavedModel where it was made (model.export(FOLDER)), then: lstm-export import FOLDER"
_COLOURS = re.compile(r"\x1b\[\d*m")
_DATATYPES = {dtype.name: name for name, dtype in DTYPES.items() if dtype.kind in "iufb"}


def load_model(path: Path) -> Any:
    """The model in a `.keras` or `.h5` file, of Keras 2 too. Raises `ExportError` when no model can be had of it.

    No code is run that is not Keras's own.
    """
    if not path.exists():
        raise ExportError(f"{path} does not exist")
    if path.suffix == ".index" or ".data-0" in path.suffix:
        raise ExportError(f"{path} is a checkpoint of TensorFlow, which holds weights without their model; {_WEIGHTS}")
    if keras2_files.is_weights_alone(path):
        raise ExportError(f"{path} holds weights without their model; {_WEIGHTS}")
    version = ""
    try:
        version = keras2_files.version_of(path)
        if version.startswith("2."):
            return keras2_files.load(path)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except ExportError as error:
        raise ExportError(f"{path} was saved by Keras {version}, and {error}; {_ELSEWHERE}") from error
    except Exception as error:
        text = _COLOURS.sub("", str(error))
        lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if line.startswith("Exception encountered:")), lines[0])
        by = f", as Keras {version} saved it," if version.startswith("2.") else ""
        raise ExportError(
            f"{path} cannot be read{by} by Keras {keras.__version__}: {trimmed(reason.rstrip('. '))}; {_advice(text, version)}"
        ) from error


def _advice(said: str, version: str) -> str:
    """What to do when Keras has said this of a file, as the end of a sentence."""
    if "Could not locate" in said:
        return (
            "a layer of your own cannot be rebuilt from the file alone: export the model where its class is known with "
            "model.export(FOLDER), then: lstm-export import FOLDER"
        )
    if "Lambda layer" in said:
        return "a Lambda layer is code and is not run: use operations of Keras or a layer of theirs in its place"
    return _ELSEWHERE if version else "give a whole model, as model.save('best.keras') writes it"


def publish_model(
    model: Any, *, chosen: Sequence[str] | None, outputs: Sequence[str], hints: Hints, target: Target
) -> tuple[Version, str]:
    """Writes `model` as a version, and says in one sentence as what; `chosen` is every format that it can be had in if None.

    Raises what `export.sources.torch_modules.publish_module` raises.
    """
    target.check()
    _refuse_stateful(model)
    checkpoint = plain.TOLD_MORE if outputs or hints != Hints() else recognise(model, target.described)
    if isinstance(checkpoint, Checkpoint):
        made = publish(
            checkpoint,
            chosen=chosen or formats.names(),
            repository=target.repository,
            name=target.name,
            version=target.version,
            tolerance=target.tolerance,
        )
        masked = any(
            isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False) for layer in model.layers
        )
        told = f"a plain {checkpoint.config.told()}: the canonical signature, every format"
        return made, told + ("; the padding is told by lengths, no more by a value that is masked" if masked else "")
    chosen = chosen or ("savedmodel",)
    if others := [form for form in chosen if form != "savedmodel"]:
        raise ExportError(
            f"format {others[0]} can be written of plain stacks of LSTM and dense layers only, and this model is none: "
            f"{checkpoint}; it can be had as savedmodel"
        )
    network = _Network(model)
    answers = own_signature.first_answers(network.run, network.stated, hints, "the file")
    names = own_signature.names_of_outputs(outputs, len(answers))
    stated = inspection.unproved(
        network.stated,
        {name: (own_signature.datatype(name, a), (-1,) * a.ndim) for name, a in zip(names, answers, strict=True)},
        _digest(model),
    )
    version, spec = own_signature.publish(
        stated,
        lambda sent, wanted: dict(zip(names, network.run(sent), strict=True)),
        {"savedmodel": ("saved_model", network.write)},
        hints,
        dataclasses.replace(target, described={"framework": "keras", **target.described}),
        Advice(
            branch="use operations of Keras (keras.ops.where) in its place",
            sizes="compute sizes with keras.ops.shape, or fix the size with --shape NAME:SIZES",
        ),
    )
    return version, f"a model of its own: its own signature, since {checkpoint}; {own_signature.told_rows(spec)}"


def _refuse_stateful(model: Any) -> None:
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "stateful", False):
            raise ExportError(
                f"the layer {layer.name} is stateful: it keeps its state from call to call, where a server answers many clients. "
                "Build the model with stateful=False and give it these weights (model.set_weights(old.get_weights())); for "
                "sequences in pieces let the state be an input and an output (initial_state, return_state=True)"
            )


class _Network:
    """A model by the names of its inputs, and as a SavedModel of the same names."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.stated = {
            tensor.name: (
                _DATATYPES.get(tensor.dtype, tensor.dtype),
                tuple(-1 if size is None else size for size in tensor.shape),
            )
            for tensor in model.inputs
        }

    def run(self, sent: Tensors) -> list[npt.NDArray[Any]]:
        return [np.asarray(tensor) for tensor in self._flat([tf.constant(sent[name]) for name in self.stated])]

    def write(self, spec: ModelSpec, path: Path) -> str:
        names = [tensor.name for tensor in spec.outputs]
        signature = [
            tf.TensorSpec([None if size == -1 else size for size in shape], DTYPES[datatype].name, name=name)
            for name, (datatype, shape) in self.stated.items()
        ]

        @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
        def answer(*tensors: Any) -> dict[str, Any]:
            return {name: tf.identity(t) for name, t in zip(names, self._flat(list(tensors)), strict=True)}

        module = tf.Module()
        module.weights = [variable.value for variable in self._model.variables]  # what TensorFlow itself keeps
        module.answer = answer
        with _steps_told_apart():
            tf.saved_model.save(module, str(path), signatures={"serving_default": answer})
        return ""

    def _flat(self, tensors: list[Any]) -> list[Any]:
        structure = tensors[0] if len(tensors) == 1 else tensors
        return list(tf.nest.flatten(self._model(structure, training=False)))


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


def _digest(model: Any) -> str:
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(f"{variable.path} {tuple(variable.shape)}\n".encode())
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()
