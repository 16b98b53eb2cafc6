"""The figures of `compare_triton.py` as Markdown: pairs of medians, and the ratio of the servers within a round.

A ratio of medians would compare runs that were made minutes apart, in which a shared machine may have been twice as
fast; so each round has its own ratio, and the median is taken of those.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import statistics
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import reference
import triton_server

from loadtest.result import COORDINATED_OMISSION

OURS, TRITON = "lstm-serve", "Triton"
Load = tuple[str, str]  # a flag of the load test and its value


@dataclasses.dataclass(frozen=True)
class Figures:
    """One run of the load test against one server; seconds, and CPU seconds for each request."""

    run: dict[str, Any]
    server_cpu: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """All that was measured: by server and load, runs in the order of the rounds; runs with a stall; by load, runs
    that were too much for Triton."""

    rounds: dict[tuple[str, Load], list[Figures]]
    stalls: dict[tuple[str, Load], dict[str, Any]]
    most: dict[Load, dict[str, Any]]

    @property
    def loads(self) -> list[Load]:
        """The loads of the rounds."""
        return [load for name, load in self.rounds if name == OURS]

    def pair(self, load: Load) -> list[list[Figures]]:
        """The runs of both servers under this load."""
        return [self.rounds[name, load] for name in (OURS, TRITON)]


def render(measured: Measured) -> str:
    """The figures as Markdown."""
    parts = (about(measured), table(measured), verdict(measured), stalls(measured), client(measured))
    return "\n".join(line for part in parts for line in part) + "\n"


def about(measured: Measured) -> list[str]:
    """What was measured, and on what."""
    version = importlib.metadata.version
    servers = {name: runs[0].run["server"] for (name, _), runs in measured.rounds.items()}
    rounds = len(measured.rounds[OURS, measured.loads[0]])
    return paragraph(
        f"The reference LSTM (two layers of {reference.CONFIG.hidden}, {reference.STEPS} steps of "
        f"{reference.CONFIG.features} features, one row a request), one thread of ONNX Runtime "
        f"{version('onnxruntime')} in each server, batches of at most 64 rows without a queue delay; "
        f"{servers[OURS]} (grpcio {version('grpcio')}) and {servers[TRITON]} (out of {triton_server.PYTRITON}, Python "
        f"backend); Python {platform.python_version()}; {os.cpu_count()} cores ({platform.machine()}), which servers "
        f"and load test share. Medians of {rounds} rounds of 3 s with the servers in turn; each cell is "
        f"`{OURS} : {TRITON}` and their ratio within a round."
    )


def table(measured: Measured) -> list[str]:
    """One line for each load."""
    lines = [
        "| load | requests/s | p50, ms | p99, ms | server CPU a request, us | failed |",
        "|---|---|---|---|---|---|",
    ]
    for load in measured.loads:
        pair = measured.pair(load)
        failed = " : ".join(str(sum(figures.run["failed"] for figures in runs)) for runs in pair)
        cells = [
            versus(pair, lambda figures: figures.run["throughput_per_second"]),
            versus(pair, lambda figures: figures.run["latency_seconds"]["p50"] * 1e3),
            versus(pair, lambda figures: figures.run["latency_seconds"]["p99"] * 1e3),
            versus(pair, lambda figures: figures.server_cpu * 1e6),
            failed,
        ]
        lines.append(f"| {title(load)} | {' | '.join(cells)} |")
    return [*lines, ""]


def verdict(measured: Measured) -> list[str]:
    """Where we are not behind, and where we are."""
    kept: list[str] = []
    missed: list[str] = []
    for load in measured.loads:
        ratio = ratio_of(measured.pair(load), lambda figures: figures.server_cpu)
        (kept if ratio <= 1 else missed).append(title(load))
    return paragraph(
        f"No more server CPU a request than {TRITON}: **kept** at {', '.join(kept) or 'no load'}; "
        f"**missed** at {', '.join(missed) or 'no load'}."
    )


def stalls(measured: Measured) -> list[str]:
    """What each loop has seen of a stall, and what the closed one says of it."""
    lines = [
        "Each server was stopped (SIGSTOP) for a second in the middle of a run of 5 s:",
        "",
        "| server | loop | load | p50, ms | p99, ms | max, ms |",
        "|---|---|---|---|---|---|",
    ]
    for (name, load), run in measured.stalls.items():
        latency = " | ".join(short(run["latency_seconds"][key] * 1e3) for key in ("p50", "p99", "max"))
        lines.append(f"| {name} | {run['mode']} | {title(load)} | {latency} |")
    said = {note for run in measured.stalls.values() for note in run["notes"] if note == COORDINATED_OMISSION}
    return [*lines, "", *(line for note in said for line in paragraph(f'Beside the closed one stands: "{note}".'))]


def client(measured: Measured) -> list[str]:
    """What the load test itself can do, by its own CPU time."""
    lines = [
        *paragraph(
            f"What one core of `lstm-loadtest` drives, by the CPU time that it used under loads that were too much for "
            f"{TRITON} here:"
        ),
        "| load | requests/s | cores used | CPU a request, us | one core drives, requests/s | said by the load test |",
        "|---|---|---|---|---|---|",
    ]
    for load, run in measured.most.items():
        cost = run["client"]["cpu_seconds_per_request"]
        drives = f"{float(f'{1 / cost:.2g}'):,.0f}"
        said = "; ".join(note for note in run["notes"] if note != COORDINATED_OMISSION) or "nothing"
        cells = (
            title(load),
            short(run["throughput_per_second"]),
            f"{run['client']['cpu_cores']:.2f}",
            short(cost * 1e6),
        )
        lines.append(f"| {' | '.join(cells)} | {drives} | {said} |")
    return lines


def paragraph(text: str) -> list[str]:
    """Lines of at most 119 characters, and an empty one."""
    return [*textwrap.wrap(text, 119, break_long_words=False, break_on_hyphens=False), ""]


def versus(pair: Sequence[Sequence[Figures]], figure: Callable[[Figures], float]) -> str:
    """Both medians and the median ratio."""
    ours, triton = (statistics.median(map(figure, runs)) for runs in pair)
    return f"{short(ours)} : {short(triton)} = **{ratio_of(pair, figure):.2f}**"


def ratio_of(pair: Sequence[Sequence[Figures]], figure: Callable[[Figures], float]) -> float:
    """The median over the rounds of ours by theirs."""
    return statistics.median(figure(ours) / figure(triton) for ours, triton in zip(*pair, strict=True))


def short(value: float) -> str:
    """Three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def title(load: Load) -> str:
    """`8 in flight`, `400/s`."""
    flag, level = load
    return f"{level} in flight" if flag == "--concurrency" else f"{level}/s"
