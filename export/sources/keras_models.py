"""Brings a Keras model (Sequential or functional) into a model repository: by our writers if it is a plain LSTM, else by Keras.

`plain_keras` decides whether it is plain. Keras rebuilds its own layers from a file, but no layer of the user's, not even
a registered one. A model with such a layer has to come as a SavedModel that the user writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export import formats
from export.errors import ExportError
from export.publish import publish
from export.samples import NO_SAMPLES, Wide
from export.sources import keras2_files, own_signature, plain, told
from export.sources.differences import Advice
from export.sources.plain_keras import masking, recognise
from export.user_code import keras_part
from export.versions import Target, Version
from models.checkpoint import Checkpoint
from serving.backends.base import trimmed
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import DTYPES, Tensors
from serving.verification import inspection
from serving.verification.hints import Hints
from serving.verification.trials import Run

_WEIGHTS = "weights need the code that makes it: lstm-export keras MODULE:FACTORY --weights FILE"
_ELSEWHERE = (
    "build it in code of your own and take the weights of this file (lstm-export keras MODULE:FACTORY --weights FILE), or write "
    "it as a SavedModel where it was made (model.export(FOLDER); with Keras 2 tf.saved_model.save(model, FOLDER)), then: "
    "lstm-export import FOLDER"
)
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
    if path.is_dir():
        raise ExportError(f"{path} is a folder, as a SavedModel is: lstm-export import {path}")
    if path.suffix.lower() not in (".keras", ".h5", ".hdf5"):
        raise ExportError(
            f"{path} ends in {path.suffix!r}, and Keras goes by that: .keras, .h5 or .hdf5, as it was saved"
        )
    if reason := _damaged(path):
        raise ExportError(
            f"{path} {reason}; its {path.stat().st_size} bytes are something else, or were cut off on the way here: compare the "
            "size with that of the original, and copy it again"
        )
    with _named_by_content(path) as named:
        model = _loaded(path, named)
    if isinstance(model, keras.Sequential) and not model.built:
        raise ExportError(
            f"{path} was saved before it knew its input: put keras.Input((None, FEATURES)) first, or call "
            "model.build((None, None, FEATURES)), and save it again"
        )
    return model


def _damaged(path: Path) -> str:
    """Why a file is none that Keras has written, as far as its outer form tells; "" if it may be one."""
    if zipfile.is_zipfile(path):
        return ""
    if not h5py.is_hdf5(path):
        return "is no file of Keras, neither HDF5 nor a whole zip"
    try:
        h5py.File(path).close()
    except OSError as error:
        return f"is damaged HDF5 ({error})"
    return ""


@contextlib.contextmanager
def _named_by_content(path: Path) -> Iterator[Path]:
    """The file under a name that Keras goes by; TensorFlow 2.0 to 2.11 wrote HDF5 into `best.keras`."""
    rightly = ".keras" if zipfile.is_zipfile(path) else ".h5"
    if path.suffix == rightly or (rightly, path.suffix) == (".h5", ".hdf5"):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{rightly}"
        link.symlink_to(path.absolute())
        yield link


def _loaded(said: Path, path: Path) -> Any:
    """The model in `path`, which a person has called `said`."""
    if keras2_files.is_weights_alone(path):
        raise ExportError(f"{said} holds weights without their model; {_WEIGHTS}")
    version = ""
    try:
        version = keras2_files.version_of(path)
        if version.startswith("2."):
            return keras2_files.load(path)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except ExportError as error:
        raise ExportError(f"{said} was saved by Keras {version}, and {error}; {_ELSEWHERE}") from error
    except Exception as error:
        text = _COLOURS.sub("", str(error))
        lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if line.startswith("Exception encountered:")), lines[0])
        by = f", as Keras {version} saved it," if version.startswith("2.") else ""
        raise ExportError(
            f"{said} cannot be read{by} by Keras {keras.__version__}: {trimmed(reason.rstrip('. '))}; {_advice(text, version)}"
        ) from error


def _advice(said: str, version: str) -> str:
    """What to do when Keras has said this of a file, as the end of a sentence."""
    if found := re.search(r"Could not locate (\w+ '[^']*')", said):
        return (
            f"{found[1]} is none of Keras's own, and cannot be rebuilt without its code: lstm-export keras MODULE:FACTORY "
            "--weights FILE runs yours, or export the model where it was made (model.export(FOLDER)), then: lstm-export import "
            "FOLDER"
        )
    if re.search(r"\bLambda\b", said):
        return "a Lambda layer is code and is not run: use operations of Keras or a layer of theirs in its place"
    return _ELSEWHERE if version else "give a whole model, as model.save('best.keras') writes it"


def publish_model(
    model: Any,
    *,
    chosen: Sequence[str] | None,
    outputs: Sequence[str],
    hints: Hints,
    target: Target,
    lengths: bool = False,
) -> tuple[Version, str]:
    """Writes `model` as a version, and says as what, with its signature; `chosen` is every format that it can be had in if None.

    With `lengths` a model that masks a value is written as one that is told the lengths of its rows. Raises what
    `export.sources.torch_modules.publish_module` raises.
    """
    target.check()
    _refuse_stateful(model)
    if lengths and not masking(model):
        raise ExportError(
            "--lengths is for a model that masks a value (Masking, mask_zero), and this one masks none: leave it out"
        )
    if lengths and target.samples is not NO_SAMPLES:
        raise ExportError("--samples know no lengths, which --lengths has clients send: leave one of the two out")
    checkpoint = plain.TOLD_MORE if outputs or hints != Hints() else recognise(model, target.described, lengths=lengths)
    if lengths and not isinstance(checkpoint, Checkpoint):
        raise ExportError(
            f"--lengths is for plain stacks of LSTM and dense layers, and this model is none: {checkpoint}"
        )
    if isinstance(checkpoint, Checkpoint):
        network = _Network(model)
        stated, run, wide = _asked(
            network, own_signature.first_answers(network.run, network.stated, hints, "the file"), outputs
        )
        made = publish(
            plain.with_samples(checkpoint, stated, run, target, wide),
            chosen=chosen or formats.names(),
            repository=target.repository,
            name=target.name,
            version=target.version,
            tolerance=target.tolerance,
            stateful=target.stateful,
            every=chosen is None,
        )
        sentence = f"a plain {checkpoint.config.told()}: the canonical signature, every format"
        if "x" not in network.stated:
            sentence += f"; {next(iter(network.stated))} is called x"
        if lengths:
            sentence += "; what is padding is told by lengths, which clients send, no more by a value that is masked"
        return made, f"{sentence}\n{told.signature(ModelSpec.read(made.path / 'spec.json'))}"
    return publish_network(
        _Network(model), checkpoint, chosen=chosen, outputs=outputs, hints=hints, target=target, where="the file"
    )


Ask = Callable[[Tensors], list[npt.NDArray[Any]]]


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

    def traced(self) -> Ask | None:
        """As `run`, but quick: by the graph that is written; None where it cannot be traced."""
        ...

    def run_float64(self, sent: Tensors) -> list[npt.NDArray[Any]] | None:
        """As `run`, in float64; None where it cannot."""
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
    every, chosen = chosen is None, chosen or ("savedmodel",)
    if others := [form for form in chosen if form != "savedmodel"]:
        raise ExportError(
            f"format {others[0]} can be written of plain stacks of LSTM and dense layers only, and this model is none: "
            f"{why}; it can be had as savedmodel"
        )
    answers = own_signature.first_answers(network.run, network.stated, hints, where)
    stated, run, wide = _asked(network, answers, outputs)

    traced = network.traced()
    names = [tensor.name for tensor in stated.outputs]

    version, spec = own_signature.publish(
        stated,
        run,
        {"savedmodel": ("saved_model", network.write)},
        hints,
        dataclasses.replace(target, described={"framework": "keras", **target.described}),
        Advice(
            branch="use operations of Keras (keras.ops.where) in its place",
            sizes="compute sizes with keras.ops.shape, or fix the size with --shape NAME:SIZES",
        ),
        wide,
        traced and (lambda sent, wanted: dict(zip(names, traced(sent), strict=True))),
        every=every,
    )
    sentence = f"a model of its own: its own signature, since {why}; {own_signature.told_rows(spec)}"
    return version, f"{sentence}\n{told.signature(spec)}"


def _asked(
    network: KerasNetwork, answers: Sequence[npt.NDArray[Any]], outputs: Sequence[str]
) -> tuple[ModelSpec, Run, Wide]:
    """What the network states, and how it is asked by the names of its outputs, in float64 too; `answers` are some of its own."""
    names = own_signature.names_of_outputs(outputs, len(answers))
    stated = inspection.unproved(
        network.stated,
        {name: (own_signature.datatype(name, a), (-1,) * a.ndim) for name, a in zip(names, answers, strict=True)},
        network.digest,
    )

    def wide(sent: Tensors) -> Tensors | None:
        found = network.run_float64(sent)
        return None if found is None else dict(zip(names, found, strict=True))

    return stated, lambda sent, wanted: dict(zip(names, network.run(sent), strict=True)), wide


def stated_inputs(inputs: Iterable[tuple[str, str, Sequence[int]]]) -> dict[str, Stated]:
    """Inputs by their names, from what `keras_part.Network.facts` says of them."""
    return {name: (_DATATYPES.get(dtype, dtype), tuple(shape)) for name, dtype, shape in inputs}


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
        self.digest = keras_part.digest(model)
        self.stated = stated_inputs(keras_part.inputs(model))

    def run(self, sent: Tensors) -> list[npt.NDArray[Any]]:
        return [np.asarray(t) for t in keras_part.flat(self._model, [tf.constant(sent[name]) for name in self.stated])]

    def traced(self) -> Ask | None:
        graph = keras_part.graph(self._model)
        if graph is None:
            return None
        return lambda sent: [np.asarray(t) for t in graph(*(tf.constant(sent[name]) for name in self.stated))]

    def run_float64(self, sent: Tensors) -> list[npt.NDArray[Any]] | None:
        return keras_part.in_float64(self._model, sent)

    def write(self, spec: ModelSpec, path: Path) -> str:
        keras_part.save(self._model, [tensor.name for tensor in spec.outputs], str(path))
        return ""
