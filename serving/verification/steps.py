"""Where the steps of a file are: which axis of its outputs is as long as the sequence that went in, whatever its length.

Nothing is claimed where an input has several free axes, or where inputs may be of unequal length: then nobody but a
person knows which of them are steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.signature.spec import Tensors
from serving.verification.hints import Shape
from serving.verification.trials import ROWS, SIZES, Trials

Rows = Mapping[str, int | None]


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
    for name in axes:
        try:
            trials.compute({**short, name: long[name]})
        except Exception:  # noqa: BLE001, S112 - whatever a runtime raises: they must be equal
            continue
        return True
    return False


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
