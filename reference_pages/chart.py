"""The chart of the README: how long requests take while a backend is swapped, out of the figures of `make bench-swaps`."""

from __future__ import annotations

import dataclasses
import re

from reference_pages.bars import Chart, Pair


@dataclasses.dataclass(frozen=True)
class Swap:
    """A line of the table: from what to what, how often, the seconds of a swap, and p99 in milliseconds."""

    what: str
    times: int
    seconds: float
    meanwhile_ms: float
    steady_ms: float


def swaps(report: str) -> list[Swap]:
    """The table of swaps in docs/swaps.md. Raises `ValueError` where it is not there."""
    head = "| swap | times | takes, s | requests | p99 meanwhile, ms | p99 of the slower one, ms |"
    _, found, rest = report.partition(head)
    if not found:
        raise ValueError(f"docs/swaps.md has no table that begins with {head!r}; write it with: make bench-swaps")
    made = []
    for line in rest.split("\n\n")[0].splitlines()[2:]:
        what, times, seconds, _, meanwhile, steady, *_ = (cell.strip() for cell in line.strip("| ").split("|"))
        made.append(Swap(what, int(times), float(seconds), float(meanwhile), float(steady)))
    return made


def failed(report: str) -> str:
    """How many requests failed, of how many: `0 of 562,027`. Raises `ValueError` where the report does not say."""
    found = re.search(r"^\| no request fails \| ([\d,]+ of [\d,]+) \|", report, re.MULTILINE)
    if not found:
        raise ValueError("docs/swaps.md does not say how many requests failed; write it with: make bench-swaps")
    return found[1]


def drawn(report: str) -> str:
    """The chart as SVG: for each kind of swap p99 while it lasts, and below it that of the slower of its two backends."""
    chart = Chart(
        title="p99 of requests while a backend is swapped, ms",
        description="p99 of requests while a backend is swapped, and while it serves steadily",
        first="while the swap lasts",
        second="the slower of the two backends, serving steadily",
        told=f"16 clients in a closed loop, two cores shared by all; {failed(report)} requests failed",
        left=300,
    )
    return chart.drawn([Pair(each.what, _took(each), each.meanwhile_ms, each.steady_ms) for each in swaps(report)])


def _took(swap: Swap) -> str:
    return f"{swap.seconds:g} s, {'once' if swap.times == 1 else f'{swap.times} times'}"
