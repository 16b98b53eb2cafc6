"""Whether a Keras model is a plain stack of LSTM and dense layers, and if not, why not; see `plain`.

A canonical network knows its padding from `lengths`, not from a value that stands for it. So a model with `Masking` or
`mask_zero` answers otherwise to rows that hold this value, and is taken for one only where somebody says that clients will
send lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from export.sources import plain
from models.checkpoint import DIRECTIONS, Checkpoint, CheckpointError, no_scaling
from models.config import LSTMConfig
from models.keras_lstm import KerasLSTM
from serving.verification import golden

_HARMLESS = (
    keras.layers.InputLayer,
    keras.layers.Masking,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.Softmax,
    keras.layers.Activation,
)


def recognise(model: Any, described: Mapping[str, Any], *, lengths: bool = False) -> Checkpoint | str:
    """The checkpoint of a model that is a plain stack of LSTM and dense layers; of any other, why it is none.

    With `lengths` clients tell what is padding, and no value is masked any more.
    """
    layers = [_unwrapped(layer) for layer in getattr(model, "layers", [])]
    recurrent = [layer for layer in layers if isinstance(layer, (keras.layers.LSTM, keras.layers.Bidirectional))]
    dense = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    embedding = [layer for layer in layers if isinstance(layer, keras.layers.Embedding)]
    known = (*_HARMLESS, keras.layers.LSTM, keras.layers.Bidirectional, keras.layers.Dense, keras.layers.Embedding)
    if others := [layer for layer in layers if not isinstance(layer, known)]:
        return f"it has a {type(others[0]).__name__} beside LSTM and dense layers"
    if special := [layer.name for layer in recurrent if not _plain(layer)]:
        return (
            f"the layer {special[0]} is another LSTM than the usual one: tanh and sigmoid, nothing kept between calls, two "
            "directions side by side"
        )
    cells = [_cells(layer) for layer in recurrent]
    widths, directions = {cell.units for pair in cells for cell in pair}, {len(pair) for pair in cells}
    if reason := plain.why_not(len(model.inputs), len(dense), len(embedding), widths, directions):
        return reason
    table = (embedding[0].input_dim, embedding[0].output_dim) if embedding else None
    for config in plain.configs(
        table,
        model.inputs[0].shape[-1],
        len(cells),
        cells[0][0].units,
        bidirectional=len(cells[0]) == 2,
        outputs=dense[0].units,
    ):
        try:
            network = KerasLSTM(config)
            network.load_canonical(_canonical(config, cells, dense[0], embedding))
        except CheckpointError:
            continue
        if _same(model, network, config):
            if not lengths and (masks := masking(model)):
                return (
                    f"it masks a value (its layer {masks[0]}), where a plain stack is told by lengths what is padding; with "
                    "--lengths it is written so, in every format, and clients send lengths"
                )
            weights = network.canonical_weights()
            return Checkpoint(config=config, weights=weights, framework="keras", training=dict(described))
    return plain.ANSWERS_DIFFERENTLY


def masking(model: Any) -> list[str]:
    """The names of the layers that take a value for padding."""
    return [
        layer.name
        for layer in getattr(model, "layers", [])
        if isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
    ]


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
        and not cell.stateful
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
    in_graph = tf.function(model)
    for x in plain.usual_and_unusual(config, model.inputs[0].shape[1], first_id=1):  # 0 may be masked
        expected = network.predict({"x": x})["y"]
        # Many steps in a graph made for this very size, since one by one each takes milliseconds.
        got = np.asarray((in_graph if x.shape[1] >= plain.LONG else model)(tf.constant(x), training=False))
        if golden.disagreement(got, expected) > plain.SAME:
            return False
    return True
