"""The figures of `swaps.py` as Markdown.

A thousandth of a second more is nothing to a swap that takes long and much to one that is short, since the p99 of few
requests is the latency of a handful. So the requests of all swaps between the same two backends are put together.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import statistics
import textwrap

import numpy as np
import numpy.typing as npt
from swaps_client import Record

Latencies = npt.NDArray[np.float64]  # seconds
MOST = 2.0  # times the p99 without
FLAT = 1.05  # times the memory after the first few loads
FIRST_OF_ALL = 16  # requests, one of each client
POOLS = 8  # threads that the server's own pools may start meanwhile; a leak would leave one for every load


@dataclasses.dataclass(frozen=True)
class Steady:
    """A second or so of `backend` between two swaps."""

    backend: str
    latencies: Latencies


@dataclasses.dataclass(frozen=True)
class Swap:
    """One swap; `first` if it brings the framework into the process."""

    old: str
    new: str
    first: bool
    seconds: float
    latencies: Latencies


@dataclasses.dataclass(frozen=True)
class Loading:
    """Another model is loaded in `backend`: latencies before, meanwhile, and in the second that begins with it."""

    backend: str
    first: bool
    seconds: float
    before: Latencies
    during: Latencies
    second: Latencies


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """The first second in which clients ask: while nothing is measured, and while `backend` was, which they end."""

    backend: str
    without: Latencies
    meanwhile: Latencies


@dataclasses.dataclass(frozen=True)
class First:
    """The first requests after a load, and later ones."""

    backend: str
    first: Latencies
    later: Latencies


@dataclasses.dataclass(frozen=True)
class Process:
    """What a server holds after so many loads and unloads."""

    backend: str
    loads: int
    resident_mb: float
    descriptors: int
    threads: int


@dataclasses.dataclass
class Measured:
    """All that was measured."""

    steady: list[Steady] = dataclasses.field(default_factory=list)
    swaps: list[Swap] = dataclasses.field(default_factory=list)
    loadings: list[Loading] = dataclasses.field(default_factory=list)
    firsts: list[First] = dataclasses.field(default_factory=list)
    interrupted: list[Interrupted] = dataclasses.field(default_factory=list)
    processes: list[Process] = dataclasses.field(default_factory=list)
    requests: int = 0  # of the closed loops
    failed: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    largest_difference: float = 0.0
    tolerance: float = 0.0

    def note(self, record: Record) -> None:
        """Counts what was asked and how it was answered."""
        self.requests += len(record.sent)
        self.failed += int(record.failed.sum())
        self.failures += record.failures
        self.largest_difference = max(self.largest_difference, record.largest_difference)


def render(measured: Measured) -> str:
    """The figures as Markdown."""
    parts = (
        about(measured),
        answers(measured),
        swaps(measured),
        processes(measured),
        loadings(measured),
        firsts(measured),
        measurements(measured),
    )
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def about(measured: Measured) -> list[str]:
    """On what it was measured."""
    version = importlib.metadata.version
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "torch", "tensorflow-cpu", "grpcio"))
    return paragraph(
        f"{packages}; Python {platform.python_version()}; {os.cpu_count()} cores ({platform.machine()}), which server, clients "
        f"and whoever else is on the machine share."
    )


def answers(measured: Measured) -> list[str]:
    """Whether every request was answered, and rightly."""
    said = "".join(f"; {text}" for text in sorted(set(measured.failures))[:5])
    return [
        "| promise | came | |",
        "|---|---|---|",
        f"| no request fails | {measured.failed} of {measured.requests:,}{said} | {verdict(not measured.failed)} |",
        f"| no answer is further off than {measured.tolerance:g} | {measured.largest_difference:.2g} "
        f"| {verdict(measured.largest_difference <= measured.tolerance)} |",
        "",
    ]


def swaps(measured: Measured) -> list[str]:
    """One line for each pair of backends, first times apart."""
    if not measured.swaps:
        return []
    steady = {
        name: [s.latencies for s in measured.steady if s.backend == name]
        for name in {s.backend for s in measured.steady}
    }
    lines = [
        "## Swaps",
        "",
        "| swap | times | takes, s | requests | p99 meanwhile, ms | p99 of the slower one, ms | ratio | slowest, ms | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for old, new, first in dict.fromkeys((s.old, s.new, s.first) for s in measured.swaps):
        those = [s for s in measured.swaps if (s.old, s.new, s.first) == (old, new, first)]
        during = np.concatenate([s.latencies for s in those])
        without = max(p99(*steady[old]), p99(*steady[new]))
        ratio = p99(during) / without
        cells = (
            f"{old} to {new}{', its first' if first else ''}",
            str(len(those)),
            f"{statistics.median(s.seconds for s in those):.2f}",
            str(len(during)),
            f"{p99(during):.1f}",
            f"{without:.1f}",
            f"{ratio:.2f}",
            f"{during.max() * 1e3:.0f}",
            verdict(ratio <= MOST),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| serving steadily | requests | p50, ms | p99, ms | slowest, ms |", "|---|---|---|---|---|"]
    for name, kept in steady.items():
        together = np.concatenate(kept)
        p50, slowest = float(np.median(together)) * 1e3, together.max() * 1e3
        lines.append(f"| {name} | {len(together)} | {p50:.1f} | {p99(together):.1f} | {slowest:.0f} |")
    return [*lines, ""]


def processes(measured: Measured) -> list[str]:
    """What the server holds, by the number of loads."""
    if not measured.processes:
        return []
    lines = [
        "## Memory",
        "",
        "| backend | after so many loads | resident, MB | file descriptors | threads | flat |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(process.backend for process in measured.processes):
        those = [process for process in measured.processes if process.backend == name]
        first, last = those[0], those[-1]
        flat = (
            last.resident_mb <= FLAT * first.resident_mb
            and last.descriptors <= first.descriptors
            and last.threads <= first.threads + POOLS
        )
        cells = (
            name,
            ", ".join(str(one.loads) for one in those),
            ", ".join(f"{one.resident_mb:.0f}" for one in those),
            ", ".join(str(one.descriptors) for one in those),
            ", ".join(str(one.threads) for one in those),
            verdict(flat),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def loadings(measured: Measured) -> list[str]:
    """One line for each backend and kind of load."""
    if not measured.loadings:
        return []
    lines = [
        "## Loading beside",
        "",
        "| loaded beside | takes, s | p99 before, ms | p99 meanwhile, ms | ratio, median (of each run) | slowest, ms | "
        "p99 of a second, ms | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for backend, first in dict.fromkeys((one.backend, one.first) for one in measured.loadings):
        those = [one for one in measured.loadings if (one.backend, one.first) == (backend, first)]
        ratios = [p99(one.during) / p99(one.before) for one in those]
        ratio = statistics.median(ratios)
        cells = (
            f"{backend}, {'first in the process' if first else 'later ones'}",
            f"{statistics.median(one.seconds for one in those):.2f}",
            f"{p99(*(one.before for one in those)):.1f}",
            f"{p99(*(one.during for one in those)):.1f}",
            f"{ratio:.2f} ({', '.join(f'{each:.2f}' for each in ratios)})",
            f"{max(one.during.max() for one in those) * 1e3:.0f}",
            f"{p99(*(one.second for one in those)):.1f}",
            verdict(ratio <= MOST),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def firsts(measured: Measured) -> list[str]:
    """One line for each backend."""
    if not measured.firsts:
        return []
    lines = [
        "## First requests",
        "",
        "| backend | p99 of the first, ms | of later ones | ratio | slowest of the first, ms | of later ones | |",
        "|---|---|---|---|---|---|---|",
    ]
    for backend in dict.fromkeys(one.backend for one in measured.firsts):
        those = [one for one in measured.firsts if one.backend == backend]
        first, later = [one.first for one in those], [one.later for one in those]
        ratio = statistics.median(p99(one.first) / p99(one.later) for one in those)
        slowest = [f"{max(each.max() for each in kept) * 1e3:.0f}" for kept in (first, later)]
        cells = (backend, f"{p99(*first):.1f}", f"{p99(*later):.1f}", f"{ratio:.2f}", *slowest, verdict(ratio <= MOST))
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def measurements(measured: Measured) -> list[str]:
    """One line for each backend that was being measured when clients came."""
    if not measured.interrupted:
        return []
    lines = [
        "## Measuring beside",
        "",
        "| being measured | requests | p99 without, ms | p99 meanwhile, ms | ratio, median (of each run) | "
        f"p50 of the first {FIRST_OF_ALL} without, ms | meanwhile, ms | slowest without, ms | meanwhile, ms | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for backend in dict.fromkeys(one.backend for one in measured.interrupted):
        those = [one for one in measured.interrupted if one.backend == backend]
        both = [[one.without for one in those], [one.meanwhile for one in those]]
        ratios = [p99(one.meanwhile) / p99(one.without) for one in those]
        ratio = statistics.median(ratios)
        cells = (
            backend,
            str(sum(len(one.meanwhile) for one in those)),
            *(f"{p99(*kept):.1f}" for kept in both),
            f"{ratio:.2f} ({', '.join(f'{each:.2f}' for each in ratios)})",
            *(f"{np.median([each[:FIRST_OF_ALL] for each in kept]) * 1e3:.1f}" for kept in both),
            *(f"{max(each.max() for each in kept) * 1e3:.0f}" for kept in both),
            verdict(ratio <= MOST),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def p99(*latencies: Latencies) -> float:
    """Of all of them together, in milliseconds."""
    return float(np.percentile(np.concatenate(latencies), 99)) * 1e3


def verdict(kept: bool) -> str:
    """Every promise is told alike."""
    return "kept" if kept else "**missed**"


def paragraph(text: str) -> list[str]:
    """Lines of at most 119 characters, and an empty one."""
    return [*textwrap.wrap(text, 119, break_long_words=False, break_on_hyphens=False), ""]
