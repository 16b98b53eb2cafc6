"""Between our order of axes and a file's own: rows first at every border, wherever the file has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from serving.signature.tensors import TensorSpec


def to_file(array: npt.NDArray[Any], tensor: TensorSpec) -> npt.NDArray[Any]:
    """`[rows, ...]` as the file takes it: the rows moved to their axis, or left out."""
    if tensor.rows_axis is None:
        return array[0] if array.ndim > 1 else array[:1].reshape(())  # a string stays a string
    return np.ascontiguousarray(np.moveaxis(array, 0, tensor.rows_axis)) if tensor.rows_axis else array


def from_file(array: npt.NDArray[Any], tensor: TensorSpec) -> npt.NDArray[Any]:
    """The inverse of `to_file`: `[rows, ...]`, which is one row where the file has none."""
    if tensor.rows_axis is None:
        return array[np.newaxis]
    return np.ascontiguousarray(np.moveaxis(array, tensor.rows_axis, 0)) if tensor.rows_axis else array
