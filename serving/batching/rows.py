"""Pieces of requests into the rows of a batch, and the rows of its results back into answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from serving.batching.pending import Piece
from serving.signature.spec import ModelSpec, fresh
from serving.signature.tensors import Tensors


def wanted(pieces: Sequence[Piece]) -> Sequence[str]:
    """Every output that some piece wants, each once."""
    if len(pieces) == 1:
        return pieces[0].pending.outputs
    return tuple({name: 0 for piece in pieces for name in piece.pending.outputs})


def gather(pieces: Sequence[Piece], spec: ModelSpec) -> Tensors:
    """Every input of `spec`: the rows of all pieces, one after the other, and what clients have left out filled in.

    What a request alone has sent is passed on without a copy.
    """
    gathered: dict[str, np.ndarray[Any, Any]] = {}
    rows = [piece.rows for piece in pieces]
    steps = [piece.steps for piece in pieces]
    for tensor in spec.inputs:
        sent = [piece.pending.inputs.get(tensor.name) for piece in pieces]
        there = [array for array in sent if array is not None]
        if not there:
            gathered[tensor.name] = fresh(tensor, spec, rows, steps)
        elif len(sent) == 1:
            gathered[tensor.name] = there[0]
        elif len(there) == len(sent):
            gathered[tensor.name] = np.concatenate(there)
        else:
            gathered[tensor.name] = np.concatenate(
                [
                    fresh(tensor, spec, [piece.rows], [piece.steps]) if array is None else array
                    for piece, array in zip(pieces, sent, strict=True)
                ]
            )
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
