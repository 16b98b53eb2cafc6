"""Pieces of requests into the rows of a batch, and the rows of its results back into answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.batching.pending import Piece
from serving.signature.spec import ModelSpec, fresh
from serving.signature.tensors import Tensors


def wanted(pieces: Sequence[Piece]) -> Sequence[str]:
    """Every output that some piece wants, each once."""
    if len(pieces) == 1:
        return pieces[0].pending.outputs
    return tuple({name: 0 for piece in pieces for name in piece.pending.outputs})


def gather(pieces: Sequence[Piece], spec: ModelSpec, but: Collection[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """Every input of `spec`, `but` for those that somebody else fills in: the rows of all pieces, one after the other.

    What clients have left out is filled in.

    Pieces are padded to the steps of the longest; that there are lengths to tell which steps are true is the key's business.
    What a request alone has sent is passed on without a copy.
    """
    gathered: dict[str, np.ndarray[Any, Any]] = {}
    rows = [piece.rows for piece in pieces]
    steps = [piece.steps for piece in pieces]
    unequal = len(set(steps)) > 1
    for tensor in spec.inputs:
        if tensor.name in but:
            continue
        sent = [piece.pending.inputs.get(tensor.name) for piece in pieces]
        there = [array for array in sent if array is not None]
        if not there:
            gathered[tensor.name] = fresh(tensor, spec, rows, steps)
        elif len(sent) == 1:
            gathered[tensor.name] = there[0]
        elif len(there) < len(sent):
            gathered[tensor.name] = np.concatenate(
                [
                    fresh(tensor, spec, [piece.rows], [piece.steps]) if array is None else array
                    for piece, array in zip(pieces, sent, strict=True)
                ]
            )
        elif unequal and tensor.steps_axis is not None:
            gathered[tensor.name] = _padded(there, tensor.steps_axis, max(steps))
        else:
            gathered[tensor.name] = np.concatenate(there)
    return gathered


def _padded(arrays: Sequence[npt.NDArray[Any]], axis: int, steps: int) -> npt.NDArray[Any]:
    """The arrays one after the other, with zeros (or empty strings) behind the steps of each."""
    shape = list(arrays[0].shape)
    shape[0], shape[axis] = sum(map(len, arrays)), steps
    padded = np.zeros(shape, arrays[0].dtype) if arrays[0].dtype != object else np.full(shape, b"", object)
    row = 0
    for array in arrays:
        end = row + len(array)
        padded[(slice(row, end), *[slice(None)] * (axis - 1), slice(array.shape[axis]))] = array
        row = end
    return padded


def padding_ratio(pieces: Sequence[Piece]) -> float:
    """Which share of the steps of a batch is padding that was added to make the pieces of one length."""
    if len(pieces) == 1:
        return 0.0
    steps = [piece.steps for piece in pieces]
    longest = max(steps)
    if longest == min(steps):
        return 0.0
    rows = [piece.rows for piece in pieces]
    true = sum([count * length for count, length in zip(rows, steps, strict=True)])
    return 1 - true / (longest * sum(rows))


def scatter(pieces: Sequence[Piece], results: Tensors, steps_axes: Mapping[str, int]) -> Iterator[Tensors]:
    """For each piece the outputs that it wants: its own rows, and along an axis of steps its own steps."""
    row = 0
    for piece in pieces:
        span = slice(row, row + piece.rows)
        row += piece.rows
        answer = {name: results[name][span] for name in piece.pending.outputs}
        for name, axis in steps_axes.items():
            if name in answer and answer[name].shape[axis] > piece.steps:
                answer[name] = answer[name][(slice(None),) * axis + (slice(piece.steps),)]
        yield answer
