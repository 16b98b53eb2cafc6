"""Brings a Keras model (Sequential or functional) into a model repository: by our writers if it is a plain LSTM, else by Keras.

`plain_keras` decides whether it is plain. Keras rebuilds its own layers from a file, but no layer of the user's, not even
a registered one. A model with such a layer has to come as a SavedModel that the user writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export import formats
from export.errors import ExportError
from export.publish import publish
from export.sources import own_signature, plain
from export.sources.own_signature import Advice
from export.sources.plain_keras import recognise
from export.user_code import keras_part
from export.versions import Target, Version
from models.checkpoint import Checkpoint
from serving.backends.base import trimmed
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import DTYPES, Tensors
from serving.verification import inspection
from serving.verification.hints import Hints

_DATATYPES = {dtype.name: name for name, dtype in DTYPES.items() if dtype.kind in "iufb"}


def load_model(path: Path) -> Any:
    """The model in a `.keras` file. Raises `ExportError` when it cannot be read without running code of its own."""
    if not path.exists():
        raise ExportError(f"{path} does not exist")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if line.startswith("Exception encountered:")), lines[0])
        raise ExportError(
            f"{path} cannot be read by Keras: {trimmed(reason.rstrip('. '))}; {_advice(str(error))}"
        ) from error


def _advice(said: str) -> str:
    """What to do when Keras has said this of a file, as the end of a sentence."""
    if "Could not locate" in said:
        return (
            "a layer of your own cannot be rebuilt from the file alone: export the model where its class is known with "
            "model.export(FOLDER), then: lstm-export import FOLDER"
        )
    if "ambda" in said:
        return "a Lambda layer is code and is not run: use operations of Keras or a layer of theirs in its place"
    return "give a whole model, as model.save('best.keras') writes it"


def publish_model(
    model: Any, *, chosen: Sequence[str] | None, outputs: Sequence[str], hints: Hints, target: Target
) -> tuple[Version, str]:
    """Writes `model` as a version, and says in one sentence as what; `chosen` is every format that it can be had in if None.

    Raises what `export.sources.torch_modules.publish_module` raises.
    """
    target.check()
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
    return publish_network(
        _Network(model), checkpoint, chosen=chosen, outputs=outputs, hints=hints, target=target, where="the file"
    )


class KerasNetwork(Protocol):
    """A model that is no plain stack, wherever it lives."""

    @property
    def digest(self) -> str:
        """Of its weights."""
        ...

    @property
    def stated(self) -> Mapping[str, Stated]:
        """Its inputs, in order."""
        ...

    def run(self, sent: Tensors) -> list[npt.NDArray[Any]]:
        """Its answers to arrays by the names of its inputs."""
        ...

    def write(self, spec: ModelSpec, path: Path) -> str:
        """Writes it as a SavedModel with the names of its inputs and of the specification's outputs. Returns ""."""
        ...


def publish_network(
    network: KerasNetwork,
    why: str,
    *,
    chosen: Sequence[str] | None,
    outputs: Sequence[str],
    hints: Hints,
    target: Target,
    where: str,
) -> tuple[Version, str]:
    """As `publish_model`, for a model that is no plain stack, with the reason; `where` names what declares its inputs."""
    chosen = chosen or ("savedmodel",)
    if others := [form for form in chosen if form != "savedmodel"]:
        raise ExportError(
            f"format {others[0]} can be written of plain stacks of LSTM and dense layers only, and this model is none: "
            f"{why}; it can be had as savedmodel"
        )
    answers = own_signature.first_answers(network.run, network.stated, hints, where)
    names = own_signature.names_of_outputs(outputs, len(answers))
    stated = inspection.unproved(
        network.stated,
        {name: (own_signature.datatype(name, a), (-1,) * a.ndim) for name, a in zip(names, answers, strict=True)},
        network.digest,
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
    return version, f"a model of its own: its own signature, since {why}; {own_signature.told_rows(spec)}"


def stated_inputs(inputs: Iterable[tuple[str, str, Sequence[int]]]) -> dict[str, Stated]:
    """Inputs by their names, from what `keras_part.Network.facts` says of them."""
    return {name: (_DATATYPES.get(dtype, dtype), tuple(shape)) for name, dtype, shape in inputs}


class _Network:
    """A model by the names of its inputs, and as a SavedModel of the same names."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.digest = keras_part.digest(model)
        self.stated = stated_inputs(keras_part.inputs(model))

    def run(self, sent: Tensors) -> list[npt.NDArray[Any]]:
        return [np.asarray(t) for t in keras_part.flat(self._model, [tf.constant(sent[name]) for name in self.stated])]

    def write(self, spec: ModelSpec, path: Path) -> str:
        keras_part.save(self._model, [tensor.name for tensor in spec.outputs], str(path))
        return ""
