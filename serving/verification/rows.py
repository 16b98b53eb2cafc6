"""Where the rows of a file are: proved by running it, never guessed.

Every free axis may be that of the rows, and an input that has a free axis has rows, unless a person says that all rows
share it. What happens to one row along the axis of the rows must not move the answer of another. A free axis alone
proves nothing, since the steps of a sequence are free as well; but a step does move the answers of those behind it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.backends.base import Contents, first_line
from serving.errors import RepositoryError
from serving.signature.tensors import Tensors
from serving.verification import company, values
from serving.verification.company import TOLERANCE, Apart, largest
from serving.verification.golden import disagreement
from serving.verification.hints import Hints, Shape, Unclear
from serving.verification.trials import ROWS, SIZES, Rows, Trials
from serving.verification.values import Kind

MOST_READINGS = 256
# Tried where the usual sizes fail: frames of samples, pictures, multiples of what networks halve.
OTHER_SIZES = (32, 64, 100, 128, 160, 224, 256, 320, 400, 512, 576, 640, 768, 1024)
TAKEN_TOLD = 4
PROVED_AT = 2  # sizes, where the file takes so many
GLANCED_AT = (1, 2, 128)  # further ones: a file may squeeze a single step away, or do something else with many
TRIES = 6  # of moving an answer that is one of a few classes, say
OWN_ANSWER = (Kind(), Kind(values.POSITIVE), Kind(values.LARGE))


class Reading(NamedTuple):
    """For each input the axis of the rows, None for one that all rows share; `rows` is None if they are taken one at a time.

    `why` says what was seen of rows that touch each other.
    """

    rows: Rows | None
    why: str = ""


def rows_axes(trials: Trials, inputs: Mapping[str, Shape], hints: Hints, contents: Contents) -> Reading:
    """Where the rows are; what the graph of the file shows goes before what its answers show.

    Raises `Unclear` where a person has to decide, `RepositoryError` where what was said does not hold.
    """
    choices: dict[str, list[int | None]] = {
        name: [hints.rows.get(name)]
        if name in hints.rows or name in hints.values  # rows of one and the same value cannot be told apart
        else [*(axis for axis, size in enumerate(shape) if size == -1)] or [None]
        for name, shape in inputs.items()
    }
    proved, why = [], ""
    for tried, axes in enumerate(itertools.product(*choices.values())):
        if tried == MOST_READINGS:
            raise Unclear(
                f"there are too many ways to read {len(inputs)} inputs, and none of the first {MOST_READINGS} keeps rows "
                "apart; say where they are with --rows INPUT=AXIS, or INPUT=none, for some"
            )
        candidate = dict(zip(choices, axes, strict=True))
        seen = _apart(trials, candidate, contents) if any(axis is not None for axis in axes) else None
        if seen and not seen.why:
            proved.append(candidate)
        elif seen:
            why = why or seen.why
    if len(proved) > 1:
        readings = " or ".join(_told(candidate) for candidate in proved)
        raise Unclear(f"rows could lie along several axes: {readings}; say which with --rows INPUT=AXIS")
    if proved:
        return Reading(proved[0])
    if any(axis is not None for axis in hints.rows.values()):
        raise RepositoryError(
            f"rows do touch each other along {_told(hints.rows)}, or the file does not run so"
            + (f": {why}" if why else "")
        )
    try:
        trials.compute(trials.sent(dict.fromkeys(inputs), 1, SIZES[0], full=True))
    except Unclear:
        raise
    except Exception as error:  # whatever a runtime raises
        raise Unclear(
            f"the file could not be run on anything that was tried, sizes of {SIZES[0]} along its free axes among them: "
            f"{first_line(error)}; {_sizes_told(trials, inputs)}, or say what an input must hold (--value)"
        ) from error
    return Reading(None, why)


def _sizes_told(trials: Trials, inputs: Mapping[str, Shape]) -> str:
    """Which sizes the file takes, of others than the usual ones, and how a person says the right one."""
    taken: list[int] = []
    for size in OTHER_SIZES:
        with contextlib.suppress(Unclear):  # too many elements
            if trials.takes(trials.sent(dict.fromkeys(inputs), 1, size, full=True)):
                taken.append(size)
        if len(taken) == TAKEN_TOLD:
            break
    most = max(shape.count(-1) for shape in inputs.values())
    # Of several free axes the first is mostly that of the rows, and so is the only one of an input beside such.
    flags = [
        f"--shape {name}:{','.join(_size_told(shape, axis) for axis in range(len(shape)))}"
        for name, shape in inputs.items()
        if 0 < shape.count(-1) == most
    ]
    seen = f"it runs with {', '.join(map(str, taken))} along them; " if taken else ""
    return f"{seen}state the size that it was made for with {' '.join(flags) or '--shape NAME:SIZES'}, -1 where free"


def _size_told(shape: Shape, axis: int) -> str:
    if shape[axis] != -1:
        return str(shape[axis])
    return "-1" if shape.count(-1) > 1 and axis == shape.index(-1) else "SIZE"


def _apart(trials: Trials, rows: Rows, contents: Contents) -> Apart | None:
    """What is seen of rows that lie there; None where the file runs on nothing, or its answers are no rows' answers."""
    seen: list[Apart] = []
    enough = PROVED_AT if trials.free_beside(rows) else 1
    axes: Mapping[str, int] = {}
    for size in SIZES[::-1]:
        there = _axes_of_answers(trials, rows, size)
        if there is None:
            continue
        axes = there
        if not axes or (not seen and not _own_answers(trials, rows, axes, size)):
            return None
        if why := contents.mixed(rows):
            return Apart(why)
        crowds = company.CROWDS if len(seen) + 1 == enough else ()
        seen.append(company.apart(trials, rows, axes, size, crowds))
        if seen[-1].why or len(seen) == enough:
            break
    if seen and not seen[-1].why and trials.free_beside(rows):
        seen += [company.glance(trials, rows, axes, size) for size in GLANCED_AT if trials.affords(size)]
    return next((each for each in seen if each.why), seen[0]) if seen else None


def _axes_of_answers(trials: Trials, rows: Rows, size: int) -> Mapping[str, int] | None:
    """Where the rows of each output are; empty where an output has none, None where the file does not run like this."""
    count = ROWS[0]
    for kind, full in itertools.product(_kinds(trials), (False, True)):
        try:
            base, fewer = (
                trials.compute(trials.sent(rows, many, size, kind, full=full)) for many in (count, count - 1)
            )
        except Unclear:
            raise
        except Exception:  # noqa: BLE001, S112 - whatever a runtime raises: it does not run like this
            continue
        return axes_of_rows(base, fewer, count) or {}
    return None


def axes_of_rows(base: Tensors, fewer: Tensors, count: int) -> Mapping[str, int] | None:
    """For each output the one axis that is as long as there are rows; None if one has none."""
    axes = {}
    for name, array in base.items():
        if array.ndim != fewer[name].ndim:
            return None
        found = [
            axis
            for axis, (more, less) in enumerate(zip(array.shape, fewer[name].shape, strict=True))
            if (more, less) == (count, count - 1)
        ]
        if len(found) != 1:
            return None
        axes[name] = found[0]
    return axes


def _kinds(trials: Trials) -> tuple[Kind, ...]:
    """What is tried in turn until every row moves its own answer."""
    return (*OWN_ANSWER, Kind(values.SAMPLED)) if trials.sampled else OWN_ANSWER


def _own_answers(trials: Trials, rows: Rows, axes: Mapping[str, int], size: int) -> bool:
    """Whether every row moves its own answer, and none moves another's: the rows of a file do, its steps do not.

    For values about 0 a file may answer all rows alike, and then others are tried.
    """
    for kind in _kinds(trials):
        sent = trials.sent(rows, ROWS[0], size, kind)
        try:
            base = trials.compute(sent)
            moved = [_moves(trials, rows, axes, sent, base, row, size, kind) for row in range(ROWS[0])]
        except Exception:  # noqa: BLE001, S112 - whatever a runtime raises: it does not take what was drawn
            continue
        if None in moved:
            return False
        if all(moved):
            return True
    return False


def _moves(
    trials: Trials,
    rows: Rows,
    axes: Mapping[str, int],
    sent: Tensors,
    base: Tensors,
    row: int,
    size: int,
    kind: Kind,
) -> bool | None:
    """Whether the answer to a row moves when all its inputs are made anew; None when that of another row does."""
    for _ in range(TRIES):
        answer = trials.compute(trials.again(rows, sent, row, size, kind))
        moved = False
        for name, array in answer.items():
            ours, theirs = np.moveaxis(array, axes[name], 0), np.moveaxis(base[name], axes[name], 0)
            others = [i for i in range(len(theirs)) if i != row]
            if len(ours) != len(theirs) or _differ(ours[others], theirs[others], largest(theirs)):
                return None
            moved |= _differ(ours[row], theirs[row], 0)
        if moved:
            return True
    return False


def _differ(got: npt.NDArray[Any], expected: npt.NDArray[Any], beside: float) -> bool:
    """Whether any element differs by more than rounding beside that magnitude; what is no number in both is the same."""
    return disagreement(got, expected, beside) > TOLERANCE


def _told(rows: Rows) -> str:
    return ", ".join(f"{name}={'none' if axis is None else axis}" for name, axis in rows.items())
