"""What was measured: figures of single runs, medians over rounds, and ratios and differences within a round.

A ratio of medians would compare runs that were made minutes apart, in which a shared machine may have been twice as
fast; so each round has its own ratio, and the median is taken of those.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

LoadT = TypeVar("LoadT")  # whatever names a load


@dataclasses.dataclass(frozen=True)
class Figures:
    """One load on one server. Microseconds, milliseconds and answers a second; None where the client did not tell.

    `requests` is what the CPU time was divided by; `unsent` were due in an open loop and never left; `saturated` says that
    the client may be what was measured.
    """

    cpu_us: float
    requests: int
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    failed: int = 0
    unsent: int = 0
    saturated: bool = False


Figure = Callable[[Figures], float | None]


@dataclasses.dataclass
class Measured(Generic[LoadT]):
    """All figures, by server, load and round; and why there are none, by server and load (None: the server itself)."""

    rounds: int
    figures: dict[tuple[str, LoadT], dict[int, Figures]] = dataclasses.field(default_factory=dict)
    failures: dict[tuple[str, LoadT | None], str] = dataclasses.field(default_factory=dict)
    rate: float | None = None  # requests a second in the open loop

    def add(self, server: str, load: LoadT, number: int, figures: Figures) -> None:
        """Keeps the figures of one run."""
        self.figures.setdefault((server, load), {})[number] = figures

    def median(self, server: str, load: LoadT, figure: Figure) -> float | None:
        """Over the rounds that have this figure; None if none has."""
        values = [value for run in self.figures.get((server, load), {}).values() if (value := figure(run)) is not None]
        return statistics.median(values) if values else None

    def total(self, server: str, load: LoadT, figure: Callable[[Figures], int]) -> int:
        """Over all rounds."""
        return sum(map(figure, self.figures.get((server, load), {}).values()))

    def ratio(self, one: tuple[str, LoadT], other: tuple[str, LoadT], figure: Figure) -> float | None:
        """The median over the rounds of one's figure by the other's, each a server under a load; None if no round has both."""
        ratios = [mine / its for mine, its in self._pairs(one, other, figure) if its]
        return statistics.median(ratios) if ratios else None

    def difference(self, one: tuple[str, LoadT], other: tuple[str, LoadT], figure: Figure) -> float | None:
        """The same of one's figure less the other's."""
        differences = [mine - its for mine, its in self._pairs(one, other, figure)]
        return statistics.median(differences) if differences else None

    def _pairs(self, one: tuple[str, LoadT], other: tuple[str, LoadT], figure: Figure) -> Iterator[tuple[float, float]]:
        runs, others = self.figures.get(one, {}), self.figures.get(other, {})
        for number in runs.keys() & others.keys():
            mine, its = figure(runs[number]), figure(others[number])
            if mine is not None and its is not None:
                yield mine, its
