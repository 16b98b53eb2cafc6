"""Weights that are kept smaller in a file than they are computed with: fp16, or int8 with one scale for each row.

Only matrices are kept smaller; biases and scalings are a small part and stay as they are. Whatever is kept is restored to
float32 once, when the file is loaded, and everything is computed in float32: rows stay as exact beside each other as
ever. A graph that quantised activations over a batch would not keep that promise, which is why none is offered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from models.checkpoint import Weights

FP32, FP16, INT8_WEIGHTS = "fp32", "fp16", "int8-weights"
PRECISIONS = (FP32, FP16, INT8_WEIGHTS)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A matrix as a file keeps it: `[rows, columns]` float16 or int8, and float32 `[rows, 1]` to multiply it with, or None."""

    array: npt.NDArray[Any]
    scale: npt.NDArray[np.float32] | None

    def restored(self) -> npt.NDArray[np.float32]:
        """The float32 matrix that is computed with."""
        full = self.array.astype(np.float32)
        return full if self.scale is None else full * self.scale


def store(weights: Weights, precision: str) -> dict[str, Stored]:
    """Every matrix of the weights as it is to be kept, by name; empty for "fp32". Raises `ExportError`."""
    if precision not in PRECISIONS:
        raise ExportError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    if precision == FP32:
        return {}
    kept = _half if precision == FP16 else _int8
    return {name: kept(name, array) for name, array in weights.items() if array.ndim == 2}


def rounded(weights: Weights, stored: Mapping[str, Stored]) -> dict[str, npt.NDArray[np.float32]]:
    """The weights that a file with these matrices computes with."""
    return {name: stored[name].restored() if name in stored else array for name, array in weights.items()}


def _half(name: str, array: npt.NDArray[np.float32]) -> Stored:
    largest = float(np.abs(array).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise ExportError(
            f"{name} holds {largest:.3g}, which is beyond float16; export it with --precision fp32 or int8-weights"
        )
    return Stored(array.astype(np.float16), None)


def _int8(name: str, array: npt.NDArray[np.float32]) -> Stored:
    """Symmetric: the largest of every row becomes 127 or -127. It takes `name` because `_half` does."""
    largest = np.abs(array).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return Stored(np.rint(array / scale).clip(-127, 127).astype(np.int8), scale)
