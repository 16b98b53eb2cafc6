"""What a network must beat to be worth serving: answers that need no learning.

Each answers in the form of `models.scoring.answers`, so a baseline and a network are judged by the same lines of code
on the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int64]

NEAR_DAYS = 7


def majority_class(training: Whole, classes: int, cases: int) -> Floats:
    """Always the class that is most frequent in `training`: 1 there, `[cases, classes]`."""
    answer = np.zeros((cases, classes), np.float32)
    answer[:, np.bincount(training, minlength=classes).argmax()] = 1
    return answer


def persistence(target: Floats, horizons: Sequence[int]) -> Floats:
    """As now, so at every horizon: `target` `[rows]` -> `[rows, horizons]`."""
    return np.repeat(target[:, None], len(horizons), axis=1)


def by_day_of_year(target: Floats, days: Whole) -> Floats:
    """Mean of `target` over the rows within seven days of each day of the year, of any year: `[366]`, day 1 first.

    NaN for a day that has no such row.
    """
    apart = np.abs(np.arange(1, 367)[:, None] - days)
    near = (
        np.minimum(apart, np.abs(365 - apart)) <= NEAR_DAYS
    )  # the last days of December are near the first of January
    count = near.sum(axis=1)
    means = (near @ target.astype(np.float64)) / np.maximum(count, 1)
    return np.where(count > 0, means, np.nan).astype(np.float32)


def climatology(normal: Floats, days: Whole, horizons: Sequence[int]) -> Floats:
    """What is `normal` (`[366]`) on the day that is asked about: `[rows, horizons]`.

    `days` `[rows]` is the day of the year of each row. Rows whose horizon lies behind the end, which have no target
    either, get NaN.
    """
    answer = np.full((len(days), len(horizons)), np.nan, np.float32)
    for output, horizon in enumerate(horizons):
        answer[: len(days) - horizon, output] = normal[days[horizon:] - 1]
    return answer
