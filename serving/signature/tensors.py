"""Tensors: what travels between the rooms, its datatypes, and the facts about one of them. Axis 0 is the rows everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Tensors = Mapping[str, npt.NDArray[Any]]

# Requests share a batch only if theirs are equal: the bytes of what all rows share, and each input's shape behind the rows, with
# -1 for the steps where these may be unequal.
BatchKey = tuple[bytes | tuple[int, ...], ...]

# NumPy has no bfloat16: two bytes that are never mistaken for a whole number.
BF16: np.dtype[Any] = np.dtype([("bf16", "<u2")])

# The protocol's datatype names and what they are in memory (little-endian on the wire). BYTES is an object array of
# `bytes`.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": BF16,
    "BYTES": np.dtype(object),
}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One named tensor: `datatype` is a key of `DTYPES`; `shape` includes axis 0 (the rows), -1 where the size is free.

    `rows_axis` is where the rows are in the file: 0 unless someone else has exported it, None where the file has no such
    axis, be it that all rows share the tensor or that the model takes one row at a time. `steps_axis` is the axis of `shape`
    along which the steps of a sequence lie, as many as in every other tensor that has one; None where there are none, or
    nobody has proved where. `shown` is the shape that clients see instead of `shape`, the rows first as well, where the
    operator has reshaped it; its free sizes are those of `shape`, in their order.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    rows_axis: int | None = 0
    steps_axis: int | None = None
    shown: tuple[int, ...] | None = None

    def as_computed(self, sent: tuple[int, ...]) -> tuple[int, ...]:
        """A shape as a client sees it, which fits `shown`, as it is computed with; the rows are first in both."""
        return sent if self.shown is None else _with_sizes_of(sent, self.shown, self.shape)

    def as_shown(self, computed: tuple[int, ...]) -> tuple[int, ...]:
        """The inverse. Raises `ValueError` where what was computed does not fit `shape`."""
        return computed if self.shown is None else _with_sizes_of(computed, self.shape, self.shown)

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The shape in the file itself."""
        rows, *others = self.shape
        if self.rows_axis is not None:
            others.insert(self.rows_axis, rows)
        return tuple(others)

    @property
    def dtype(self) -> np.dtype[Any]:
        return DTYPES[self.datatype]


def _with_sizes_of(sizes: tuple[int, ...], pattern: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
    """`target`, its free axes filled with what `sizes` has at the free axes of `pattern`."""
    if any(size != fixed for size, fixed in zip(sizes, pattern, strict=True) if fixed != -1):
        raise ValueError(f"{list(sizes)} does not fit {list(pattern)}")
    free = iter([size for size, fixed in zip(sizes, pattern, strict=True) if fixed == -1])
    return tuple(next(free) if fixed == -1 else fixed for fixed in target)
