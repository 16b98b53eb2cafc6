"""What is aimed at, what came, and whether that is met: by the medians of what was measured within each round."""

from __future__ import annotations

import dataclasses
import math

from benchmarks.peers.campaign import SHARE_OF_TRITON
from benchmarks.peers.load import CLOSED, IN_FLIGHT, MANY, MUTUAL_TLS, OPEN, PERF, RATE, STREAMS, Load
from benchmarks.peers.measured import Figure, Figures, Measured
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, TRITON
from benchmarks.peers.text import paragraph, row, short

Run = tuple[str, Load]  # a server under a load


def cpu(run: Figures) -> float | None:
    """Server CPU a request, us."""
    return run.cpu_us


@dataclasses.dataclass(frozen=True)
class Target:
    """The figure of one run by another's is at most `most`; or, in microseconds, what it is `more` than the other's."""

    what: str
    most: float
    one: Run
    other: Run
    figure: Figure = cpu
    more: bool = False

    @property
    def beside(self) -> Target | None:
        """The same in a closed loop, for what perf_analyzer has asked."""
        if self.one[1].client != PERF:
            return None
        one, other = ((name, dataclasses.replace(load, client=CLOSED)) for name, load in (self.one, self.other))
        return dataclasses.replace(self, one=one, other=other)

    def came(self, measured: Measured[Load]) -> float | None:
        """What was measured; None if one of the two was not."""
        compared = measured.difference if self.more else measured.ratio
        return compared(self.one, self.other, self.figure)

    def cells(self, measured: Measured[Load]) -> list[str]:
        """A line of the table."""
        came, beside = self.came(measured), self.beside.came(measured) if self.beside else None
        told = [self._told(value) for value in (self.most, came, beside)]
        return [self.what, self.one[1].client, told[0], told[1], self._verdict(came), told[2]]

    def _verdict(self, came: float | None) -> str:
        if came is None:
            return "not measured"
        return "met" if came <= self.most or math.isclose(came, self.most) else "**missed**"

    def _told(self, value: float | None) -> str:
        return f"{short(value)} us" if self.more and value is not None else short(value)


def _unary(client: str, in_flight: int) -> Load:
    return Load(client, IN_FLIGHT, in_flight)


def _same(what: str, most: float, server: str, other: str, load: Load, figure: Figure = cpu) -> Target:
    return Target(what, most, (server, load), (other, load), figure)


TARGETS = (
    *(
        _same(f"CPU a request by {TRITON}'s, {count} in flight", most, OURS, TRITON, _unary(PERF, count))
        for count, most in ((MANY, 0.65), (1, 0.75))
    ),
    _same(f"CPU a request by {MLSERVER}'s, 32 in flight", 0.25, OURS, MLSERVER, _unary(CLOSED, 32)),
    *(
        _same(f"{EDGE} by {FLOOR}, CPU a request, {count} in flight", most, EDGE, FLOOR, _unary(client, count))
        for client, most in ((PERF, 0.8), (CLOSED, 1.1))
        for count in (MANY, 1)
    ),
    *(
        Target(
            f"CPU a message on streams by {whose} unary request, {MANY} in flight",
            most,
            (OURS, Load(PERF, STREAMS, MANY)),
            (name, _unary(PERF, MANY)),
        )
        for name, whose, most in ((TRITON, f"{TRITON}'s", 0.6), (OURS, "our own", 1.0))
    ),
    _same(f"p50 by {TRITON}'s, 1 in flight", 1.0, OURS, TRITON, _unary(PERF, 1), lambda run: run.p50_ms),
    _same(
        f"p99 by {TRITON}'s, at {SHARE_OF_TRITON:.0%} of its capacity",
        1.0,
        OURS,
        TRITON,
        Load(OPEN, RATE, 0),
        lambda run: run.p99_ms,
    ),
    Target(
        f"CPU a request more with mutual TLS than plain, {MANY} in flight",
        50.0,
        (OURS, Load(CLOSED, MUTUAL_TLS, MANY)),
        (OURS, _unary(CLOSED, MANY)),
        more=True,
    ),
)


def table(measured: Measured[Load]) -> list[str]:
    """A line for each target."""
    head = ["figure", "client", "at most", "came", "", f"in a {CLOSED}"]
    return [
        "### Targets",
        "",
        *paragraph(
            f"CPU is that of the servers, and what came the median over the rounds. Beside what {PERF} sees stands the same "
            f"in a {CLOSED} of one thread."
        ),
        row(head),
        row(["---"] * len(head)),
        *(row(target.cells(measured)) for target in TARGETS),
        "",
    ]
