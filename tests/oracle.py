"""The network of `models/config.py` in float64 NumPy, straight from the equations: what all others are held against.

Slow, and read in a minute: one row at a time, one step at a time, no padding anywhere. One fact that surprises: a
float32 network may differ from it by some 1e-7 a step without anything being wrong.
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
    """`y`, `hn`, `cn` of the canonical signature, float64, for `x`, `lengths`, `h0`, `c0`; row by row."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    rows, steps = inputs["x"].shape[:2]
    y = np.zeros((rows, steps, config.outputs))
    hn, cn = inputs["h0"].astype(np.float64), inputs["c0"].astype(np.float64)
    for row, length in enumerate(inputs["lengths"]):
        x = inputs["x"][row, :length]
        h = w["embedding"][x] if config.input == "tokens" else (x - w["input.mean"]) / w["input.scale"]
        for layer in range(config.layers):
            outputs = []
            for d in range(config.directions):
                at = row, layer * config.directions + d
                order = slice(None) if d == 0 else slice(None, None, -1)
                out, hn[at], cn[at] = _layer(w, f"lstm.{layer}.{DIRECTIONS[d]}", h[order], hn[at], cn[at])
                outputs.append(out[order])
            h = np.concatenate(outputs, axis=1)
        read = h if config.head == "values_per_step" else hn[row, -config.directions :].reshape(1, -1)
        linear = read @ w["head.weight"].T + w["head.bias"]
        if config.head == "classification":
            exponents = np.exp(linear - linear.max())
            y[row, :1] = exponents / exponents.sum()
        else:
            y[row, : len(linear)] = linear * w["output.scale"] + w["output.mean"]
    return {"y": y if config.head == "values_per_step" else y[:, 0], "hn": hn, "cn": cn}


def _layer(w: Mapping[str, Array], prefix: str, x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
    """`h` after every step [steps, hidden], and the last `h` and `c`."""
    outputs = []
    bias = w[f"{prefix}.bias_input"] + w[f"{prefix}.bias_hidden"]
    for step in x:
        gates = w[f"{prefix}.weight_input"] @ step + w[f"{prefix}.weight_hidden"] @ h + bias
        i, f, g, o = np.split(gates, 4)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs), h, c


def _sigmoid(z: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * z))
