"""How far float32 is from float64 for a network, which no file in float32 can better: what to say where a tolerance is missed.

The canonical network is computed here in float64 for that; what its framework or a user's own code computes is in
`export.sources`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from models.checkpoint import DIRECTIONS, Weights
from models.config import LSTMConfig
from serving.signature.spec import LARGEST_TOLERANCE

Array = npt.NDArray[Any]

# The answers of two files in float32 differ by the rounding of both, each in an order of its own.
OFTEN = 16


def check_tolerance(tolerance: float) -> None:
    """Raises `ExportError` for one that no version may have."""
    if not 0 < tolerance <= LARGEST_TOLERANCE:
        raise ExportError(
            f"tolerance is {tolerance:g}; it must lie between 0 and {LARGEST_TOLERANCE}: answers that may be further apart "
            "than that prove nothing"
        )


def is_rounding(apart: float, natural: float) -> bool:
    """Whether two answers in float32 may be so far `apart` where float32 is `natural` from float64."""
    return apart <= OFTEN * natural


def told(apart: float, natural: float | None) -> str:
    """What to say of answers that are so far apart; `natural` is None where float64 cannot be had."""
    if natural is None:
        return f"it could not be computed in float64, which would tell whether that is rounding; {_allowed(apart)}"
    if not is_rounding(apart, natural):
        return f"float32 is only {natural:.2g} from float64 for this network on these samples, so that is no rounding"
    return (
        f"float32 itself is {natural:.2g} from float64 for this network on these samples, so that is rounding; "
        f"{_allowed(apart)}"
    )


def _allowed(apart: float) -> str:
    """With twice as much other machines have some room: the next of 1, 2, 5, 10, ..."""
    room = 2 * apart
    if not room <= LARGEST_TOLERANCE:
        return f"no tolerance allows for that, as {LARGEST_TOLERANCE} is the largest"
    power = 10.0 ** math.floor(math.log10(room))
    number = next(step * power for step in (1, 2, 5, 10) if step * power >= room * (1 - 1e-9))
    return f"allow it with --tolerance {number:.0e}"


def predict(config: LSTMConfig, weights: Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """`y`, `hn` and `cn` of the canonical signature in float64; equations as in `models/torch_lstm.py`."""
    kept = {name: array.astype(np.float64) for name, array in weights.items()}
    true = np.arange(inputs["x"].shape[1])[None, :] < inputs["lengths"][:, None]  # [rows, steps]
    if config.input == "tokens":
        steps = kept["embedding"][np.where(true, inputs["x"], 0)]
    else:
        steps = (np.where(true[..., None], inputs["x"], 0) - kept["input.mean"]) / kept["input.scale"]
    hidden, cell = (inputs[name].astype(np.float64) for name in ("h0", "c0"))
    for layer in range(config.layers):
        answers = []
        for number, direction in enumerate(DIRECTIONS[: config.directions]):
            place = layer * config.directions + number
            state = hidden[:, place], cell[:, place]
            answer, (hidden[:, place], cell[:, place]) = _one_way(
                kept, f"lstm.{layer}.{direction}.", steps, true, state, backward=number == 1
            )
            answers.append(answer)
        steps = np.concatenate(answers, axis=-1)
    if config.head != "values_per_step":
        steps = hidden[:, -config.directions :].reshape(len(hidden), -1)
    y = steps @ kept["head.weight"].T + kept["head.bias"]
    if config.head == "classification":
        y = np.exp(y - y.max(axis=-1, keepdims=True))
        y /= y.sum(axis=-1, keepdims=True)
    else:
        y = y * kept["output.scale"] + kept["output.mean"]
    if config.head == "values_per_step":
        y = np.where(true[..., None], y, 0)
    return {"y": y, "hn": hidden, "cn": cell}


def _one_way(
    kept: Mapping[str, Array], of: str, steps: Array, true: Array, state: tuple[Array, Array], *, backward: bool
) -> tuple[Array, tuple[Array, Array]]:
    """The state's first half after each step `[rows, steps, hidden]`, and the last state; padding leaves the state as it is."""
    hidden, cell = state
    into = steps @ kept[f"{of}weight_input"].T + kept[f"{of}bias_input"] + kept[f"{of}bias_hidden"]
    answers = np.zeros((*steps.shape[:2], hidden.shape[1]))
    order = np.arange(steps.shape[1])
    for step in order[::-1] if backward else order:
        gates = into[:, step] + hidden @ kept[f"{of}weight_hidden"].T
        let_in, kept_on, candidate, shown = np.split(gates, 4, axis=1)
        moved = cell / (1 + np.exp(-kept_on)) + np.tanh(candidate) / (1 + np.exp(-let_in))
        here = true[:, step, None]
        cell = np.where(here, moved, cell)
        hidden = np.where(here, np.tanh(moved) / (1 + np.exp(-shown)), hidden)
        answers[:, step] = hidden
    return answers, (hidden, cell)
