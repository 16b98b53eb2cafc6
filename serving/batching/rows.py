"""Pieces of requests into the rows of a batch, and the rows of its results back into answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from serving.batching.pending import Piece
from serving.signature.spec import Tensors


def wanted(pieces: Sequence[Piece]) -> Sequence[str]:
    """Every output that some piece wants, each once."""
    if len(pieces) == 1:
        return pieces[0].pending.outputs
    return tuple({name: 0 for piece in pieces for name in piece.pending.outputs})


def gather(pieces: Sequence[Piece]) -> Tensors:
    """The rows of all pieces, one after the other; a request alone is passed on without a copy."""
    first = pieces[0].pending.inputs
    if len(pieces) == 1:
        return first
    gathered: dict[str, np.ndarray[Any, Any]] = {}
    for name in first:
        gathered[name] = np.concatenate([piece.pending.inputs[name] for piece in pieces])
    return gathered


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
