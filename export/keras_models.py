"""Brings a Keras model (Sequential or functional) into a model repository: by our writers if it is a plain LSTM, else by Keras.

As with modules of torch, nothing is recognised by its looks alone: the canonical network must give the model's answers. One
fact that surprises: a canonical network knows its padding from `lengths`, not from a value that stands for it, so of a
recognised model `Masking` and `mask_zero` fall away.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export import foreign, formats
from export.errors import ExportError
from export.foreign import Target
from export.publish import Version, publish
from models.checkpoint import DIRECTIONS, Checkpoint, CheckpointError, no_scaling
from models.config import ConfigError, LSTMConfig
from models.keras_lstm import KerasLSTM
from serving import findings, golden
from serving.findings import Hints
from serving.spec import DTYPES, ModelSpec, Tensors

_HARMLESS = (
    keras.layers.InputLayer,
    keras.layers.Masking,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.Softmax,
    keras.layers.Activation,
)
_DATATYPES = {dtype.name: name for name, dtype in DTYPES.items() if dtype.kind in "iufb"}


def load_model(path: Path) -> Any:
    """The model in a `.keras` file. Raises `ExportError` when it cannot be read without running code of its own."""
    if not path.exists():
        raise ExportError(f"{path} does not exist")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if line.startswith("Exception encountered:")), lines[0])[:300]
        raise ExportError(
            f"{path} cannot be read by Keras: {reason}. A layer of your own cannot be rebuilt from the file alone (register it "
            "and export the model yourself with model.export, then: lstm-export import FOLDER); a Lambda layer is code and is "
            "not run"
        ) from error


def publish_model(
    model: Any, *, chosen: Sequence[str] | None, outputs: Sequence[str], hints: Hints, target: Target
) -> tuple[Version, str]:
    """Writes `model` as a version, and says in one sentence as what; `chosen` is every format that it can be had in if None.

    Raises what `export.torch_modules.publish_module` raises.
    """
    target.check()
    checkpoint = None if outputs or hints != Hints() else recognise(model, target.described)
    if checkpoint:
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
            f"format {others[0]} can be written of plain stacks of LSTM and dense layers only, and this model is none; it can "
            "be had as savedmodel"
        )
    network = _Network(model)
    answers = network.run(foreign.ones(network.stated))
    names = foreign.names_of_outputs(outputs, len(answers))
    stated = findings.unproved(
        network.stated,
        {name: (foreign.datatype(name, a), (-1,) * a.ndim) for name, a in zip(names, answers, strict=True)},
        _digest(model),
    )
    version, spec = foreign.publish(
        stated,
        lambda sent, wanted: dict(zip(names, network.run(sent), strict=True)),
        {"savedmodel": ("saved_model", network.write)},
        hints,
        dataclasses.replace(target, described={"framework": "keras", **target.described}),
        "use operations of Keras (keras.ops.where) in its place",
    )
    return version, f"a model of its own: its own signature; {foreign.told_rows(spec)}"


def recognise(model: Any, described: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint of a model that is a plain stack of LSTM and dense layers; None for any other."""
    layers = [_unwrapped(layer) for layer in getattr(model, "layers", [])]
    recurrent = [layer for layer in layers if isinstance(layer, (keras.layers.LSTM, keras.layers.Bidirectional))]
    dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    embedding = [layer for layer in layers if isinstance(layer, keras.layers.Embedding)]
    known = (*_HARMLESS, keras.layers.LSTM, keras.layers.Bidirectional, keras.layers.Dense, keras.layers.Embedding)
    if len(model.inputs) != 1 or not recurrent or len(dense) != 1 or len(embedding) > 1:
        return None
    if any(not isinstance(layer, known) for layer in layers) or not all(map(_plain, recurrent)):
        return None
    cells = [_cells(layer) for layer in recurrent]
    if len({(len(pair), cell.units) for pair in cells for cell in pair}) > 1:
        return None
    for head in ("values_per_step", "values", "classification"):
        if embedding:
            fields = {"vocabulary": embedding[0].input_dim, "embedding": embedding[0].output_dim}
        else:
            fields = {"features": model.inputs[0].shape[-1]}
        try:
            config = LSTMConfig(
                input="tokens" if embedding else "features",
                layers=len(cells),
                hidden=cells[0][0].units,
                bidirectional=len(cells[0]) == 2,
                head=head,
                outputs=dense[0].units,
                **fields,
            )
            network = KerasLSTM(config)
            network.load_canonical(_canonical(config, cells, dense[0], embedding))
        except (ConfigError, CheckpointError):
            continue
        if _same(model, network, config):
            weights = network.canonical_weights()
            return Checkpoint(config=config, weights=weights, framework="keras", training=dict(described))
    return None


def _unwrapped(layer: Any) -> Any:
    """A dense layer that is applied to every step is a dense layer."""
    return layer.layer if isinstance(layer, keras.layers.TimeDistributed) else layer


def _cells(layer: Any) -> list[Any]:
    """The LSTM layers of one layer of the stack: one, or one for each direction."""
    return [layer.forward_layer, layer.backward_layer] if isinstance(layer, keras.layers.Bidirectional) else [layer]


def _plain(layer: Any) -> bool:
    """Whether an LSTM layer computes the usual equations; whether in the usual order is found by trying."""
    if isinstance(layer, keras.layers.Bidirectional) and layer.merge_mode != "concat":
        return False
    return all(
        isinstance(cell, keras.layers.LSTM)
        and cell.activation is keras.activations.tanh
        and cell.recurrent_activation is keras.activations.sigmoid
        for cell in _cells(layer)
    )


def _canonical(
    config: LSTMConfig, cells: Sequence[Sequence[Any]], dense: Any, embedding: Sequence[Any]
) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of the layers in the layout of `models.checkpoint`. Scaling is none."""

    def array(variable: Any, *shape: int, transpose: bool = False) -> npt.NDArray[np.float32]:
        if variable is None:
            return np.zeros(shape, np.float32)
        found = np.asarray(variable.numpy(), np.float32)
        return np.ascontiguousarray(found.T if transpose else found)

    weights = {"head.weight": array(dense.kernel, transpose=True), "head.bias": array(dense.bias, config.outputs)}
    weights |= no_scaling(config)
    if embedding:
        weights["embedding"] = array(embedding[0].embeddings)
    for number, directions in enumerate(cells):
        for direction, layer in zip(DIRECTIONS, directions, strict=False):
            prefix, gates = f"lstm.{number}.{direction}", 4 * config.hidden
            weights[f"{prefix}.weight_input"] = array(layer.cell.kernel, transpose=True)
            weights[f"{prefix}.weight_hidden"] = array(layer.cell.recurrent_kernel, transpose=True)
            weights[f"{prefix}.bias_input"] = array(layer.cell.bias, gates)
            weights[f"{prefix}.bias_hidden"] = np.zeros(gates, np.float32)
    return weights


def _same(model: Any, network: KerasLSTM, config: LSTMConfig) -> bool:
    """Whether the model answers as the canonical network does, for several numbers of rows and steps."""
    generator = np.random.default_rng(5)
    fixed = model.inputs[0].shape[1]
    for rows, steps in ((1, fixed or 1), (3, fixed or 7), (2, fixed or 24)):
        if config.input == "tokens":
            x: npt.NDArray[Any] = generator.integers(1, config.vocabulary, (rows, steps))  # 0 may be masked
        else:
            x = generator.normal(size=(rows, steps, config.features)).astype(np.float32)
        expected = network.predict({"x": x})["y"]
        got = np.asarray(model(tf.constant(x), training=False))
        if golden.disagreement(got, expected) > foreign.SAME:
            return False
    return True


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

    def write(self, spec: ModelSpec, path: Path) -> None:
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
        tf.saved_model.save(module, str(path), signatures={"serving_default": answer})

    def _flat(self, tensors: list[Any]) -> list[Any]:
        structure = tensors[0] if len(tensors) == 1 else tensors
        return list(tf.nest.flatten(self._model(structure, training=False)))


def _digest(model: Any) -> str:
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(f"{variable.path} {tuple(variable.shape)}\n".encode())
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()
