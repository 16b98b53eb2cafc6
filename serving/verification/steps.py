"""The steps of a file: which axis of its outputs is as long as the sequence that went in, and whether it goes on from a state.

Nothing is claimed where an input has several free axes, or where inputs may be of unequal length: then nobody but a
person knows which of them are steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from serving.signature.spec import StatePair
from serving.signature.tensors import Tensors
from serving.verification import values
from serving.verification.company import TOLERANCE
from serving.verification.golden import disagreement
from serving.verification.hints import Shape
from serving.verification.trials import ROWS, SIZES, Rows, Trials
from serving.verification.values import Kind

PIECES = ((1,), (3,), (1, 2, 3, 4, 5), (7, 2, 1))  # sizes of pieces, over and over until the steps are used up
STREAMED = (
    *(Kind(), Kind(values.POSITIVE), Kind(place=values.TAIL), Kind(place=values.HEAD)),
    Kind(place=values.HOLE, marker=float("nan")),
)
# A file may count its steps, or do something else with many.
LONG, LONG_PIECES = 128, ((100, 28), (16,))


def input_axes(trials: Trials, shapes: Mapping[str, Shape], rows: Rows) -> dict[str, int]:
    """For each input that has steps its axis of them, in the file's own layout; empty where they are not known."""
    free = {
        name: [axis for axis, size in enumerate(shape) if size == -1 and axis != rows[name]]
        for name, shape in shapes.items()
    }
    if any(len(axes) > 1 for axes in free.values()):
        return {}
    found = {name: axes[0] for name, axes in free.items() if axes}
    return found if len(found) < 2 or not _may_differ(trials, rows, found) else {}


def _may_differ(trials: Trials, rows: Rows, axes: Mapping[str, int]) -> bool:
    """Whether the file takes inputs of unequal lengths, so that they are not steps of one sequence."""
    short, long = (trials.sent(rows, ROWS[0], size) for size in SIZES[:2])
    return any(trials.takes({**short, name: long[name]}) for name in axes)


def output_axis(name: str, axes: Mapping[str, int], answers: Sequence[tuple[Tensors, Tensors]]) -> int | None:
    """The axis of an output that was as long as the inputs of `axes` in every trial; None where there is none, or several."""
    if not axes:
        return None
    timed, axis = next(iter(axes.items()))
    lengths = [sent[timed].shape[axis] for sent, _ in answers]
    if len(set(lengths)) < 2:
        return None
    shapes = [answer[name].shape for _, answer in answers]
    found = [
        place
        for place in range(len(shapes[0]))
        if all(shape[place] == length for shape, length in zip(shapes, lengths, strict=True))
    ]
    return found[0] if len(found) == 1 else None


def streamable(
    trials: Trials, rows: Rows, timed: Mapping[str, int], state: Sequence[StatePair], outputs: Mapping[str, int | None]
) -> bool:
    """Whether a sequence in pieces is answered as the whole of it, each piece from the state that the one before has left.

    Values for each step are put together along the axis that `outputs` has for them; others are those of the last piece.
    A file of a fixed size is asked piece by piece anyway, and knows no whole to compare with: its state makes it streamable.
    """
    if not timed:
        return not trials.free_beside(rows)
    count = ROWS[1]
    tried = [(SIZES[-1], *each) for each in itertools.product(STREAMED, PIECES)]
    if trials.affords(LONG):
        tried += [(LONG, Kind(), pieces) for pieces in LONG_PIECES]
    for size, kind, sizes in tried:
        sent = trials.sent(rows, count, size, kind, full=True)
        whole = trials.attempt(sent)
        if whole is None:
            return False
        # Where no number stands alone in its row, there is one way to ask for a piece.
        ways = (True, False) if trials.counts else (True,)
        answers = (_in_pieces(trials, sent, timed, state, outputs, size, sizes, counted=counted) for counted in ways)
        if not any(answer is not None and _alike(answer, whole) for answer in answers):
            return False
    return True


def _alike(pieces: Tensors, whole: Tensors) -> bool:
    return all(disagreement(pieces[name], expected) <= TOLERANCE for name, expected in whole.items())


def _in_pieces(
    trials: Trials,
    sent: Tensors,
    timed: Mapping[str, int],
    state: Sequence[StatePair],
    outputs: Mapping[str, int | None],
    steps: int,
    sizes: Sequence[int],
    *,
    counted: bool,
) -> Tensors | None:
    """The answer put together; None where a piece is refused, or their answers do not fit together.

    `counted` says whether a number that stands alone in its row counts the steps of a piece.
    """
    carried = {pair.input: sent[pair.input] for pair in state}
    answers: list[Tensors] = []
    for begin, size in _spans(steps, sizes):
        piece = {
            name: np.take(array, np.arange(begin, begin + size), timed[name]) if name in timed else array
            for name, array in sent.items()
        }
        if counted:
            piece |= {name: np.minimum(sent[name], size).astype(sent[name].dtype) for name in trials.counts}
        answer = trials.attempt({**piece, **carried})
        if answer is None:
            return None
        answers.append(answer)
        carried = {pair.input: answer[pair.output] for pair in state}
    try:
        return {
            name: array
            if (axis := outputs[name]) is None
            else np.concatenate([answer[name] for answer in answers], axis)
            for name, array in answers[-1].items()
        }
    except ValueError:
        return None


def _spans(steps: int, sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each piece begins, and how many steps it has."""
    begin = 0
    for size in itertools.cycle(sizes):
        if begin >= steps:
            return
        yield begin, min(size, steps - begin)
        begin += size
