"""The network of `models/config.py` in float64 NumPy, straight from the equations: what all others are held against.

The cell is that of S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory" (Neural Computation 9(8), 1997), with
the forget gate of F. Gers, J. Schmidhuber and F. Cummins, "Learning to Forget: Continual Prediction with LSTM" (Neural
Computation 12(10), 2000), a weight from every unit to every gate, and no peepholes. At step t, from x_t and what the
step before has left, where s(z) = 1 / (1 + exp(-z)) and `*` is element by element:

    i_t = s(W_i x_t + U_i h_{t-1} + b_i)        input gate: how much of the candidate is let in
    f_t = s(W_f x_t + U_f h_{t-1} + b_f)        forget gate: how much of the cell is kept
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)     candidate for the cell
    o_t = s(W_o x_t + U_o h_{t-1} + b_o)        output gate: how much of the cell is shown
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

A row that is shorter than the batch needs no reversing and no cutting. A step outside the row leaves the state as it
is, so the backward direction, which meets the padding first, still has its initial state when it comes to the row's
last true step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models.checkpoint import DIRECTIONS, Weights
from models.config import LSTMConfig

Array = npt.NDArray[Any]


def predict(config: LSTMConfig, weights: Weights, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """`y`, `hn`, `cn` of the canonical signature, float64, for `x`, `lengths`, `h0`, `c0`; all rows at once."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    hn, cn = inputs["h0"].astype(np.float64), inputs["c0"].astype(np.float64)
    within = np.arange(inputs["x"].shape[1]) < inputs["lengths"][:, None]  # [rows, steps]
    if config.input == "tokens":
        h = w["embedding"][np.where(within, inputs["x"], 0)]
    else:
        h = (np.where(within[:, :, None], inputs["x"], 0.0) - w["input.mean"]) / w["input.scale"]
    for layer in range(config.layers):
        outputs = []
        for d, direction in enumerate(DIRECTIONS[: config.directions]):
            at = layer * config.directions + d
            out, hn[:, at], cn[:, at] = _layer(w, f"lstm.{layer}.{direction}", h, within, hn[:, at], cn[:, at])
            outputs.append(out)
        h = np.concatenate(outputs, axis=2)  # [rows, steps, directions * hidden]
    read = h if config.head == "values_per_step" else hn[:, -config.directions :].reshape(len(hn), -1)
    y = read @ w["head.weight"].T + w["head.bias"]
    if config.head == "classification":
        exponents = np.exp(y - y.max(axis=1, keepdims=True))
        y = exponents / exponents.sum(axis=1, keepdims=True)
    else:
        y = y * w["output.scale"] + w["output.mean"]
    return {"y": np.where(within[:, :, None], y, 0.0) if config.head == "values_per_step" else y, "hn": hn, "cn": cn}


def _layer(
    w: Mapping[str, Array], prefix: str, x: Array, within: Array, h: Array, c: Array
) -> tuple[Array, Array, Array]:
    """`h` after every step [rows, steps, hidden], and the last `h` and `c` [rows, hidden]."""
    outputs = np.empty((*x.shape[:2], h.shape[1]))
    bias = w[f"{prefix}.bias_input"] + w[f"{prefix}.bias_hidden"]
    steps = range(x.shape[1])
    for t in steps if prefix.endswith("forward") else reversed(steps):
        gates = x[:, t] @ w[f"{prefix}.weight_input"].T + h @ w[f"{prefix}.weight_hidden"].T + bias
        i, f, g, o = np.split(gates, 4, axis=1)
        new_c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        new_h = _sigmoid(o) * np.tanh(new_c)
        true = within[:, t, None]
        h, c = np.where(true, new_h, h), np.where(true, new_c, c)
        outputs[:, t] = h
    return outputs, h, c


def _sigmoid(z: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * z))  # 1 / (1 + exp(-z)), which overflows nowhere
