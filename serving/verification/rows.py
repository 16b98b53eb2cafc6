"""Where the rows of a file are: proved by running it, never guessed.

What happens to one row along the axis of the rows must not move the answer of another. A free axis alone proves nothing,
since the steps of a sequence are free as well; but a step does move the answers of those behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends.base import first_line
from serving.errors import RepositoryError
from serving.signature.spec import Tensors
from serving.verification.golden import disagreement
from serving.verification.hints import Hints, Shape, Unclear
from serving.verification.trials import KINDS, ROWS, SIZES, Trials

COMPANY = 8  # rows of a batch in which each must be answered as it is alone
MOST_READINGS = 256
TOLERANCE = 1e-5


def rows_axes(trials: Trials, inputs: Mapping[str, Shape], hints: Hints) -> Mapping[str, int | None] | None:
    """For each input the axis of the rows, None for one that all rows share; None if the file takes one row at a time."""
    choices = {
        name: [hints.rows.get(name)]
        if name in hints.rows or name in hints.values  # rows of one and the same value cannot be told apart
        else [*(axis for axis, size in enumerate(shape) if size == -1), None]
        for name, shape in inputs.items()
    }
    tried = 0
    for readings_of_one_kind in _readings(choices):
        proved = []
        for candidate in readings_of_one_kind:
            tried += 1
            if tried > MOST_READINGS:
                raise Unclear(
                    f"there are too many ways to read {len(inputs)} inputs, and none of the first {MOST_READINGS} keeps rows "
                    "apart; say where they are with --rows INPUT=AXIS, or INPUT=none, for some"
                )
            if _proved(trials, candidate):
                proved.append(candidate)
        if len(proved) > 1:
            readings = " or ".join(_told(candidate) for candidate in proved)
            raise Unclear(f"rows could lie along several axes: {readings}; say which with --rows INPUT=AXIS")
        if proved:
            return proved[0]
    if any(axis is not None for axis in hints.rows.values()):
        raise RepositoryError(f"rows do touch each other along {_told(hints.rows)}, or the file does not run so")
    try:
        trials.compute(trials.sent(dict.fromkeys(inputs), 1, SIZES[0]))
    except Unclear:
        raise
    except Exception as error:  # whatever a runtime raises
        raise Unclear(
            f"the file could not be run on anything that was tried, sizes of {SIZES[0]} along its free axes among them: "
            f"{first_line(error)}; state the sizes that it takes with --shape NAME:SIZES, -1 where free, and values with "
            "--value NAME=VALUE"
        ) from error
    return None


def _readings(choices: Mapping[str, Sequence[int | None]]) -> Iterator[Iterator[dict[str, int | None]]]:
    """Every way to say where the rows are, those first in which the fewest inputs have none."""
    must = {name for name, axes in choices.items() if None not in axes}
    may = [name for name, axes in choices.items() if None in axes and len(axes) > 1]
    never = {name for name, axes in choices.items() if list(axes) == [None]}

    def of_kind(count: int) -> Iterator[dict[str, int | None]]:
        for without in itertools.combinations(may, count):
            left_out = never | set(without)
            options = [
                (None,) if name in left_out else [axis for axis in axes if axis is not None]
                for name, axes in choices.items()
            ]
            for axes in itertools.product(*options):
                yield dict(zip(choices, axes, strict=True))

    for count in range(len(may) + (1 if must else 0)):
        yield of_kind(count)


def _proved(trials: Trials, rows: Mapping[str, int | None]) -> bool:
    """Whether the file runs with rows there, gives every row an answer, and moves no other when one is changed."""
    count = ROWS[0]
    for size in SIZES[::-1]:
        sent = trials.sent(rows, count, size)
        try:
            base = trials.compute(sent)
            fewer = trials.compute(trials.sent(rows, count - 1, size))
        except Exception:  # noqa: BLE001, S112 - whatever a runtime raises: it does not run like this
            continue
        axes = axes_of_rows(base, fewer, count)
        if axes is None:
            return False
        apart = all(_alone(trials, rows, axes, sent, base, row) for row in range(count))
        return apart and all(_in_company(trials, rows, axes, size, kind) for kind in KINDS)
    return False


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


def _alone(
    trials: Trials,
    rows: Mapping[str, int | None],
    axes: Mapping[str, int],
    sent: Tensors,
    base: Tensors,
    row: int,
) -> bool:
    """Whether changing one row of all inputs changes that row of the answer and no other."""
    changed = {
        name: array if (axis := rows[name]) is None else trials.again(name, array, axis, row)
        for name, array in sent.items()
    }
    answer = trials.compute(changed)
    moved = False
    for name, array in answer.items():
        ours, theirs = np.moveaxis(array, axes[name], 0), np.moveaxis(base[name], axes[name], 0)
        others = [i for i in range(len(ours)) if i != row]
        if _differ(ours[others], theirs[others], _largest(theirs)):
            return False
        moved |= _differ(ours[row], theirs[row], 0)
    return moved


def _in_company(trials: Trials, rows: Mapping[str, int | None], axes: Mapping[str, int], size: int, kind: str) -> bool:
    """Whether every row of a larger batch is answered as it is alone; also if the file takes no values of that kind."""
    sent = trials.sent(rows, COMPANY, size, kind)
    try:
        together = trials.compute(sent)
    except Exception:  # noqa: BLE001 - whatever a runtime raises; an id outside the vocabulary, say
        return kind != KINDS[0]
    for row in range(COMPANY):
        one = {
            name: array if (axis := rows[name]) is None else np.take(array, [row], axis) for name, array in sent.items()
        }
        for name, array in trials.compute(one).items():
            if _differ(np.take(together[name], [row], axes[name]), array, _largest(together[name])):
                return False
    return True


def _largest(array: npt.NDArray[Any]) -> float:
    """The largest finite absolute value, which differences are measured against: what is tiny beside it is rounding."""
    if array.dtype.kind not in "fiu" or not np.isfinite(array).any():
        return 0.0
    return float(np.abs(array[np.isfinite(array)].astype(np.float64)).max())


def _differ(got: npt.NDArray[Any], expected: npt.NDArray[Any], largest: float) -> bool:
    """Whether any element differs by more than rounding beside `largest`; what is no number in both is the same."""
    return disagreement(got, expected, largest) > TOLERANCE


def _told(rows: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name}={'none' if axis is None else axis}" for name, axis in rows.items())
