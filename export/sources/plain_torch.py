"""Whether a PyTorch module is a plain stack of LSTM and linear layers, and if not, why not; see `plain`.

A module is tried for that in both orders of axes, since the canonical network has the rows first whatever the module
has.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export.sources import plain
from export.user_code.asking import Raised
from models.checkpoint import DIRECTIONS, Checkpoint, no_scaling
from models.config import LSTMConfig
from models.torch_lstm import TorchLSTM
from serving.signature.stated import Stated
from serving.signature.tensors import Tensors
from serving.verification import golden

_NOT_FREE = "--input fixes a size, or has another datatype or rank"

Run = Callable[[Tensors], list[npt.NDArray[Any]]]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a module is made of, each part by the names that torch has for its sizes: `{"hidden_size": 16, ...}`.

    `other` is the class of a part of another kind, if there is one. `weights` are all parameters as float32, such as
    `lstms.0.weight_ih_l0`.
    """

    weights: Mapping[str, npt.NDArray[Any]]
    other: str
    lstms: Sequence[Mapping[str, Any]]
    linear: Sequence[Mapping[str, Any]]
    embedding: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Plain:
    """A plain stack as a checkpoint; whether the module itself takes the rows first."""

    checkpoint: Checkpoint
    rows_first: bool


def recognise(parts: Parts, run: Run, inputs: Mapping[str, Stated], described: Mapping[str, Any]) -> Plain | str:
    """A module that is a plain stack of LSTM and linear layers with one input; of any other, why it is none.

    `run` is the module: it takes arrays by the names of `inputs` and returns what it answers.
    """
    if parts.other:
        return f"it has a {parts.other} beside LSTM and linear layers"
    lstms, embedding = parts.lstms, parts.embedding
    widths, directions = {lstm["hidden_size"] for lstm in lstms}, {1 + lstm["bidirectional"] for lstm in lstms}
    if reason := plain.why_not(len(inputs), len(parts.linear), len(embedding), widths, directions):
        return reason
    if any(lstm["proj_size"] for lstm in lstms):
        return "its LSTM projects its state (proj_size)"
    reasons = [(0, plain.ANSWERS_DIFFERENTLY)]  # with how often the answers were the same before
    table = (embedding[0]["num_embeddings"], embedding[0]["embedding_dim"]) if embedding else None
    for config in plain.configs(
        table,
        lstms[0]["input_size"],
        sum(lstm["num_layers"] for lstm in lstms),
        lstms[0]["hidden_size"],
        bidirectional=lstms[0]["bidirectional"],
        outputs=parts.linear[0]["out_features"],
    ):
        try:
            network = TorchLSTM(config)
            network.load_canonical(_canonical(config, parts))
        except ValueError:
            continue
        for rows_first in (True, False):  # whatever its LSTMs take: it may turn the axes itself
            same, reason = _compared(functools.partial(_answer, run, next(iter(inputs)), rows_first), network, config)
            if not reason:
                weights = network.canonical_weights()
                checkpoint = Checkpoint(config=config, weights=weights, framework="torch", training=dict(described))
                return Plain(checkpoint, rows_first) if _free(inputs, config) else _NOT_FREE
            reasons.append((same, reason))
    return max(reasons, key=lambda found: found[0])[1]


def _free(inputs: Mapping[str, Stated], config: LSTMConfig) -> bool:
    """Whether the one input is declared as the canonical network takes it, every size free but that of the features."""
    ((_, declared),) = inputs.items()
    return declared in (
        [("INT64", (-1, -1))]
        if config.input == "tokens"
        else [("FP32", (-1, -1, size)) for size in (config.features, -1)]
    )


def _canonical(config: LSTMConfig, parts: Parts) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of the parts in the layout of `models.checkpoint`. Scaling is none: the module has its own, or none."""

    def array(name: str, *shape: int) -> npt.NDArray[np.float32]:
        return parts.weights.get(name, np.zeros(shape, np.float32))

    weights = {"head.weight": array("linear.0.weight"), "head.bias": array("linear.0.bias", config.outputs)}
    weights |= no_scaling(config)
    if parts.embedding:
        weights["embedding"] = array("embedding.0.weight")
    inner = [(number, layer) for number, lstm in enumerate(parts.lstms) for layer in range(lstm["num_layers"])]
    for layer_number, (number, layer) in enumerate(inner):
        for direction, suffix in zip(DIRECTIONS[: config.directions], ("", "_reverse"), strict=False):
            for part, kind in itertools.product(("weight", "bias"), ("input", "hidden")):
                tensor = array(f"lstms.{number}.{part}_{kind[0]}h_l{layer}{suffix}", 4 * config.hidden)
                weights[f"lstm.{layer_number}.{direction}.{part}_{kind}"] = tensor
    return weights


def _answer(run: Run, name: str, rows_first: bool, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The first answer of a module to `x`, which has the rows first, in either order of axes; of an answer for each step, too."""
    got = run({name: x if rows_first else np.ascontiguousarray(np.moveaxis(x, 0, 1))})[0]
    return np.moveaxis(got, 0, 1) if got.ndim == 3 and not rows_first else got


def _compared(
    answer: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], network: TorchLSTM, config: LSTMConfig
) -> tuple[int, str]:
    """For how many inputs the module answers as the canonical network does, and why it is another; "" where it is none."""
    usual = ((x, plain.SAME) for x in plain.usual_and_unusual(config))
    for number, (x, allowed) in enumerate(itertools.chain(usual, plain.padded(config))):
        expected = network.predict({"x": x})["y"]
        try:
            got = answer(x)
        except Raised as error:
            return number, f"it does not run on {list(x.shape)} (rows, steps, ...) as a plain stack would: {error}"
        if golden.disagreement(got, expected) > allowed:
            return number, plain.ANSWERS_DIFFERENTLY
    return number, ""
