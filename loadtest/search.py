"""The highest rate that a server stands: doubling until it fails, then halving the gap.

Every trial is kept, because a search that only shows its answer hides how shaky it was. The answer is the highest rate
*tried* that held, so it is always a rate for which there is a run to look at; and a rate has failed only when it failed
twice, because a disturbed machine makes a server slower and never faster.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

CLOSE_ENOUGH = 0.05  # the gap between the best rate that held and the lowest that did not, as a share of the former
MOST_TRIALS = 32
TRIES = 2  # of one rate, before it has failed
LOWEST_RATE = 1.0  # requests/s


@dataclasses.dataclass(frozen=True)
class Trial:
    """One rate (requests/s) and whether it held."""

    rate: float
    held: bool


@dataclasses.dataclass(frozen=True)
class Found:
    """`rate` is the highest that held, or None; `bounded` says that a higher one failed, so that it is an answer."""

    rate: float | None
    bounded: bool
    trials: tuple[Trial, ...]


def highest_rate(holds: Callable[[float], bool], start: float, *, whole: bool = False) -> Found:
    """Searches upwards or downwards from `start` requests/s; `holds` runs one trial and may raise to end the search.

    With `whole` only whole numbers are tried, as of sequences.
    """
    trials: list[Trial] = []
    good, bad = 0.0, math.inf
    rate = start
    while len(trials) < MOST_TRIALS:
        held = False
        while not held and _times(rate, trials) < TRIES:
            held = holds(rate)
            trials.append(Trial(rate, held))
        if held:
            good = max(good, rate)
        else:
            bad = min(bad, rate)
        if bad - good <= max(CLOSE_ENOUGH * good, float(whole)) or bad <= LOWEST_RATE:
            break
        rate = math.floor(_next(good, bad)) if whole else _next(good, bad)
    return Found(good or None, bad < math.inf, tuple(trials))


def _times(rate: float, trials: Sequence[Trial]) -> int:
    return sum(trial.rate == rate for trial in trials)


def _next(good: float, bad: float) -> float:
    if bad == math.inf:
        return good * 2
    if not good:
        return max(bad / 2, LOWEST_RATE)
    return (good + bad) / 2
