"""When requests are meant to leave: levels of load and the times of arrival within one level.

Arrivals are a function of rate and seed alone, never of the answers: that is what makes a loop open (Schroeder,
Wierman and Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006). Constant arrivals flatter a server,
because real users do not take turns; Poisson arrivals come in bursts and are the default.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from loadtest.errors import UsageError

ARRIVALS = ("poisson", "constant")
_MOST_LEVELS = 1000
_CHUNK = 1024


def parse_levels(text: str, *, whole: bool = False) -> tuple[float, ...]:
    """Levels of load: `100`, `1,8,32`, `100:1000:100` (start:end:step, the end included), or a mixture with commas.

    With `whole` they must be whole numbers. Raises `UsageError` for anything else.
    """
    levels: list[float] = []
    for part in text.split(","):
        numbers = [_number(number, text, whole) for number in part.split(":")]
        if len(numbers) == 1:
            levels += numbers
            continue
        if len(numbers) != 3:
            raise UsageError(f"{part!r} is not a range of levels; a range is start:end:step, as in 100:1000:100")
        start, end, step = numbers
        if end < start:
            raise UsageError(f"the range {part!r} ends below its start")
        count = math.floor((end - start) / step * (1 + 1e-12)) + 1
        if count > _MOST_LEVELS:
            raise UsageError(f"the range {part!r} has {count} levels; at most {_MOST_LEVELS} are run")
        levels += [start + index * step for index in range(count)]
    return tuple(levels)


def _number(text: str, whole_text: str, whole: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf or (whole and not value.is_integer()):
        kind = "positive whole numbers" if whole else "positive numbers"
        raise UsageError(f"{whole_text!r} holds {text!r}; levels are {kind}, as in 1,8,32 or 100:1000:100")
    return value


def intended_times(rate: float, arrivals: str, seed: int) -> Iterator[int]:
    """Endless nanoseconds after the start at which requests are meant to leave, `rate` a second, never falling.

    The same seed gives the same Poisson arrivals. `constant` starts at 0.
    """
    if arrivals == "constant":
        for first in itertools.count(0, _CHUNK):
            yield from ((np.arange(first, first + _CHUNK) / rate) * 1e9).astype(np.int64).tolist()
    generator = np.random.default_rng(seed)
    last = 0.0
    while True:
        chunk = last + generator.exponential(1 / rate, _CHUNK).cumsum()
        last = float(chunk[-1])
        yield from (chunk * 1e9).astype(np.int64).tolist()
