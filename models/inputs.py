"""The canonical inputs of a network as numpy arrays: checked, completed, the same for every framework.

An id or a number behind a row's length is never looked at, not even by the checks; it may be NaN or out of range. So
everything here that judges contents does it under the mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models.config import LSTMConfig

Arrays = Mapping[str, npt.NDArray[Any]]

INPUTS = ("x", "lengths", "h0", "c0")
OUTPUTS = ("y", "hn", "cn")


class InputError(ValueError):
    """Inputs that a network cannot take; the message names the input, what it is, and what it must be."""


def step_mask(lengths: npt.NDArray[np.int64], steps: int) -> npt.NDArray[np.bool_]:
    """Boolean `[rows, steps]`: true where a step belongs to its row, false in the padding."""
    return np.arange(steps) < lengths[:, None]


def complete(config: LSTMConfig, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    """All four canonical inputs in the types that a network takes.

    `x` is float32 `[rows, steps, features]` or int64 `[rows, steps]`. Missing `lengths` (int64 `[rows]`) become
    `steps`; missing `h0`, `c0` (float32 `[rows, layers * directions, hidden]`) become zeros. Raises `InputError` for an
    unknown or missing name, another shape or kind of number, a length outside `1..steps`, or a token id that the
    vocabulary lacks.
    """
    if unknown := sorted(inputs.keys() - set(INPUTS)):
        raise InputError(f"unknown input {', '.join(unknown)}; a network takes {', '.join(INPUTS)}")
    if "x" not in inputs:
        raise InputError("x is missing")
    features = config.input == "features"
    x = _cast("x", inputs["x"], np.float32 if features else np.int64)
    if x.ndim != (3 if features else 2) or 0 in x.shape or (features and x.shape[2] != config.features):
        wanted = f"[rows, steps, {config.features}]" if features else "[rows, steps]"
        raise InputError(f"x has the shape {list(x.shape)}; it must be {wanted} with at least one row and one step")
    rows, steps = x.shape[:2]

    lengths = _cast("lengths", inputs.get("lengths", np.full(rows, steps)), np.int64)
    if lengths.shape != (rows,):
        raise InputError(f"lengths has the shape {list(lengths.shape)}; it must be [{rows}], one for each row of x")
    if lengths.min() < 1 or lengths.max() > steps:
        raise InputError(f"lengths run from {lengths.min()} to {lengths.max()}; x allows 1 to {steps}")
    if not features:
        true = x[step_mask(lengths, steps)]
        if true.min() < 0 or true.max() >= config.vocabulary:
            raise InputError(f"x holds ids from {true.min()} to {true.max()}; known are 0 to {config.vocabulary - 1}")

    completed = {"x": x, "lengths": lengths}
    shape = (rows, config.layers * config.directions, config.hidden)
    for name in ("h0", "c0"):
        completed[name] = _cast(name, inputs.get(name, np.zeros(shape, np.float32)), np.float32)
        if completed[name].shape != shape:
            raise InputError(f"{name} has the shape {list(completed[name].shape)}; it must be {list(shape)}")
    return completed


def _cast(name: str, array: npt.NDArray[Any], dtype: type[np.float32] | type[np.int64]) -> npt.NDArray[Any]:
    """`array` as `dtype`, where that keeps the kind of number: a float never becomes an id."""
    array = np.asarray(array)
    if not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise InputError(f"{name} is {array.dtype}; it must be {np.dtype(dtype)}")
    return array.astype(dtype, copy=False)
