"""What a batch takes, by its rows and steps: learnt while the model is warmed up, and from gathering to sending while it serves.

Four numbers describe it: something for the call, something for each step (which waits for the one before), something for each
row, and something for each step of each row. They are fitted to what calls have taken, each call being worth as much as any
other whatever its size, so that the error is a share of the time. Until something is known they are a rule of thumb.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Cost(NamedTuple):
    """Nanoseconds: of a batch, of each of its steps, of each of its rows, and of each step of each row."""

    call: float
    step: float
    row: float
    row_step: float

    def of(self, rows: int, steps: int) -> float:
        """Nanoseconds of a call with so many rows of so many steps."""
        return self.call + self.step * steps + rows * (self.row + self.row_step * steps)


# About those of two layers of 64 in ONNX Runtime on one core. Only their ratios decide what is computed together.
BY_RULE = Cost(call=40_000, step=1_000, row=0, row_step=2_000)
ENOUGH_CELLS = 4  # of different sizes, from which on the rule is not needed
MOST_CELLS = 256  # a power of two of rows and half a power of two of steps each
NEWEST = 1 / 8  # what the newest call of a size counts, once there were some
STRETCHED = 4.0  # by so much a call may take longer than usual and still be believed: something else had the processor
FIT_EVERY = 128  # calls, after the first of them


class Cell(NamedTuple):
    """Calls of about one size: their mean rows and steps, their mean nanoseconds, and how many there were."""

    rows: float
    steps: float
    ns: float
    calls: int


class Costs:
    """Of one version in one backend. `learn` is called by its workers, everything else from any thread."""

    def __init__(self, known: Iterable[Cell] = ()) -> None:
        self._cells = {_place(cell.rows, cell.steps): cell for cell in known}
        self._calls = 0
        self._next_fit = 1
        self.now = BY_RULE
        self.fit()

    def learn(self, rows: int, steps: int, ns: int) -> None:
        """A call with so many rows of so many steps has taken so long. One without any tells nothing."""
        if not (rows and steps):
            return
        place = _place(rows, steps)
        cell = self._cells.get(place)
        if cell is None:
            if len(self._cells) >= MOST_CELLS or ns <= 0:
                return
            self._cells[place] = Cell(rows, steps, ns, 1)
        else:
            share = max(NEWEST, 1 / (cell.calls + 1))
            believed = min(ns, STRETCHED * cell.ns)
            self._cells[place] = Cell(
                cell.rows + share * (rows - cell.rows),
                cell.steps + share * (steps - cell.steps),
                cell.ns + share * (believed - cell.ns),
                cell.calls + 1,
            )
        self._calls += 1
        if self._calls >= self._next_fit:
            self._next_fit = self._calls + min(self._calls, FIT_EVERY)
            self.fit()

    def known(self) -> Sequence[Cell]:
        """What was learnt, to begin with the next time."""
        return list(self._cells.values())

    def fit(self) -> None:
        """Works the four numbers out anew; leaves them as they are while too little is known."""
        cells = self.known()
        if len(cells) >= ENOUGH_CELLS:
            self.now = _fitted(cells)


@functools.lru_cache(4096)
def _place(rows: float, steps: float) -> tuple[int, int]:
    return round(math.log2(rows)), round(2 * math.log2(steps))


def _fitted(cells: Sequence[Cell]) -> Cost:
    """The numbers, none below zero, with the least squares of relative errors.

    A number that would be negative is 0, and the others are fitted again: what little that costs over a true non-negative
    least squares (Lawson and Hanson, 1974) is not worth a library.
    """
    about = np.array([(1.0, cell.steps, cell.rows, cell.rows * cell.steps) for cell in cells])
    relative = about / np.array([cell.ns for cell in cells])[:, None]
    used = list(range(4))
    while True:
        found, *_ = np.linalg.lstsq(relative[:, used], np.ones(len(cells)), rcond=None)
        worst = int(found.argmin())
        if found[worst] >= 0:
            break
        del used[worst]
    numbers = dict(zip(used, found.tolist(), strict=True))
    return Cost(*[numbers.get(place, 0.0) for place in range(4)])
