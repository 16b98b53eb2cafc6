"""What a stateful version computes with: the states of the sequences in a batch, gathered before the call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends.base import Backend
from serving.batching import rows
from serving.batching.computation import Failed, Outcome, Ready
from serving.batching.pending import Piece
from serving.clock import SYSTEM, Clock
from serving.sequences.policy import StateLayout, StateTensor
from serving.sequences.step import Step
from serving.signature.controls import CORRID, END, START, ControlInput
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors

Array = npt.NDArray[Any]


class Stateful:
    """All pieces in one call; see `batching.computation.Computation`.

    The new states stay with the steps until `Sequences.commit` has them, so a step whose answer nobody gets moves nothing. Pieces
    that are no steps bring their state. With `shown` each piece keeps the state and the controls that it was computed with
    among its inputs, for whoever computes it again.
    """

    def __init__(
        self, backend: Backend, spec: ModelSpec, layout: StateLayout, clock: Clock = SYSTEM, *, shown: bool = False
    ) -> None:
        self._backend = backend
        self._spec = spec
        self._layout = layout
        self._steps_axes = {tensor.name: tensor.steps_axis for tensor in spec.outputs if tensor.steps_axis is not None}
        self._own = frozenset([t.input for t in layout.tensors] + [control.input for control in spec.controls])
        self._new = [tensor.output for tensor in layout.tensors]
        self._clock = clock
        self._shown = shown

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]:
        """See `Computation.run`. One call, so that either every piece is ready or every piece has failed."""
        try:
            inputs = rows.gather(pieces, self._spec, self._own)
            steps = [piece.pending.step for piece in pieces]
            for tensor in self._layout.tensors:
                inputs[tensor.input] = _states(tensor, pieces, steps)
            for control in self._spec.controls:
                inputs[control.input] = _told(control, self._spec, pieces, steps)
            started = self._clock.now_ns()
            wanted = rows.wanted(pieces)
            results = self._backend.run(inputs, tuple(dict.fromkeys((*wanted, *self._new))))
            computed = self._clock.now_ns()
            outcomes = [Ready(answer) for answer in rows.scatter(pieces, results, self._steps_axes)]
            new = {tensor.output: _whole(tensor, results, pieces) for tensor in self._layout.tensors}
        except Exception as error:  # noqa: BLE001 - border: whatever a runtime raises, the worker decides what it means
            return [Failed(error)] * len(pieces)
        row = 0
        for piece, step in zip(pieces, steps, strict=True):
            if step is not None:
                step.new, step.row = new, row
            if self._shown:
                span = slice(row, row + piece.rows)
                filled_in = {name: inputs[name][span] for name in self._own}
                piece.pending.inputs = {**piece.pending.inputs, **filled_in}
            row += piece.rows
            piece.pending.timeline.started, piece.pending.timeline.computed = started, computed
        return outcomes

    def close(self) -> None:
        """See `Computation.close`."""
        self._backend.close()


def _whole(tensor: StateTensor, results: Tensors, pieces: Sequence[Piece]) -> Array:
    """The new state, if it is one: what was stated, a row for each. Raises `ValueError`."""
    state, expected = results[tensor.output], (sum([piece.rows for piece in pieces]), *tensor.shape)
    if state.shape != expected:
        raise ValueError(
            f"the new state {tensor.output} has shape {list(state.shape)}, where {list(expected)} was stated"
        )
    return state


def _states(tensor: StateTensor, pieces: Sequence[Piece], steps: Sequence[Step | None]) -> Array:
    """What each row begins with: the state of its sequence, what its client has sent, or that of a fresh sequence."""
    slots = [step.slot if step is not None and not step.start else -1 for step in steps]
    if -1 not in slots:
        return _kept(tensor, steps, slots)
    states = np.empty((sum([piece.rows for piece in pieces]), *tensor.shape), tensor.dtype)
    row, rows_kept = 0, []
    for piece, slot in zip(pieces, slots, strict=True):
        if slot < 0:
            states[row : row + piece.rows] = piece.pending.inputs.get(tensor.input, tensor.initial)
        else:
            rows_kept.append(row)
        row += piece.rows
    if rows_kept:
        states[rows_kept] = _kept(tensor, steps, [slot for slot in slots if slot >= 0])
    return states


def _kept(tensor: StateTensor, steps: Sequence[Step | None], slots: Sequence[int]) -> Array:
    home = next(step.home for step in steps if step is not None)
    assert home is not None, "a step is computed that has not begun"
    return home.states(tensor.input, slots)


def _told(control: ControlInput, spec: ModelSpec, pieces: Sequence[Piece], steps: Sequence[Step | None]) -> Array:
    """What a control input holds in each row."""
    tensor = spec.inputs_by_name[control.input]
    values = []
    for piece, step in zip(pieces, steps, strict=True):
        if step is None and control.input in piece.pending.inputs:
            values += list(piece.pending.inputs[control.input].reshape(piece.rows))
            continue
        said = control.resting
        if step is not None and control.kind == CORRID:
            said = step.key[1]
        elif step is not None and control.kind in (START, END):
            said = control.on if (step.start if control.kind == START else step.end) else control.off
        values += [control.value(said, tensor.dtype)] * piece.rows
    return np.array(values, tensor.dtype).reshape(len(values), *tensor.shape[1:])
