"""The classification extension: instead of a tensor, its highest values with their places and names.

After https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md. Everything
behind the rows counts as one list, so a class of a tensor with further axes is a place in the flattened row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput

MAX_ELEMENTS = 1_000_000


def classify(name: str, values: npt.NDArray[Any], count: int, labels: Sequence[str]) -> npt.NDArray[Any]:
    """The `count` highest of every row of `values` (`[rows, ...]`, whole or real numbers), as BYTES `[rows, count]`.

    Each is `score:index`, or `score:index:label` where `labels` has one; the highest score first, the lower index
    among equals, NaN last. A row with fewer elements gives all of them. Raises `InvalidInput` for more than
    `MAX_ELEMENTS` elements.
    """
    if values.size > MAX_ELEMENTS:
        raise InvalidInput(
            f"classification output tensor too large: '{name}' has {values.size} elements, at most {MAX_ELEMENTS} are "
            "ordered; ask for the tensor itself"
        )
    rows = len(values)
    flat = values.reshape(rows, -1)
    count = min(count, flat.shape[1])
    # From the last element backwards, so that a stable rising order read from its end puts the lower index first; NaN
    # becomes the lowest of all.
    ordered = np.where(np.isnan(flat), -np.inf, flat) if flat.dtype.kind == "f" else flat
    places = flat.shape[1] - 1 - np.argsort(ordered[:, ::-1], axis=1, kind="stable")[:, ::-1]
    if flat.dtype.kind == "f":  # behind minus infinity too
        last = np.argsort(np.isnan(np.take_along_axis(flat, places, axis=1)), axis=1, kind="stable")
        places = np.take_along_axis(places, last, axis=1)
    places = places[:, :count]
    entries = np.empty((rows, count), object)
    for row in range(rows):
        for rank, place in enumerate(places[row].tolist()):
            entries[row, rank] = _entry(flat[row, place], place, labels).encode()
    return entries


def _entry(score: Any, place: int, labels: Sequence[str]) -> str:
    number = f"{score:.6f}" if isinstance(score, np.floating) else str(score)
    return f"{number}:{place}:{labels[place]}" if place < len(labels) else f"{number}:{place}"
