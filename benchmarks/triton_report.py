"""The figures of `compare_triton.py` as Markdown: pairs of medians, and the ratio of the servers within a round."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from typing import Any

from benchmarks import reference
from benchmarks.peers import triton
from benchmarks.peers.measured import Figure, Measured
from benchmarks.peers.server import OURS, TRITON
from benchmarks.peers.text import paragraph, ratio, row, short
from loadtest.result import COORDINATED_OMISSION

Load = tuple[str, str]  # a flag of the load test and its value


@dataclasses.dataclass
class Compared(Measured[Load]):
    """The rounds; and by server and load, runs with a stall; by load, runs that were too much for Triton."""

    stalls: dict[tuple[str, Load], dict[str, Any]] = dataclasses.field(default_factory=dict)
    most: dict[Load, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def loads(self) -> list[Load]:
        """The loads of the rounds."""
        return [load for name, load in self.figures if name == OURS]


def render(measured: Compared) -> str:
    """The figures as Markdown."""
    parts = (about(measured), table(measured), verdict(measured), stalls(measured), client(measured))
    return "\n".join(line for part in parts for line in part) + "\n"


def about(measured: Compared) -> list[str]:
    """What was measured, and on what."""
    version = importlib.metadata.version
    servers = {name: run["server"] for (name, _), run in measured.stalls.items()}
    return paragraph(
        f"The reference LSTM (two layers of {reference.CONFIG.hidden}, {reference.STEPS} steps of "
        f"{reference.CONFIG.features} features, one row a request), one thread of ONNX Runtime "
        f"{version('onnxruntime')} in each server, batches of at most 64 rows without a queue delay; "
        f"{servers[OURS]} (grpcio {version('grpcio')}) and {servers[TRITON]} (out of {triton.PYTRITON}, Python "
        f"backend); Python {platform.python_version()}; {os.cpu_count()} cores ({platform.machine()}), which servers "
        f"and load test share. Medians of {measured.rounds} rounds of 3 s with the servers in turn; each cell is "
        f"`{OURS} : {TRITON}` and their ratio within a round."
    )


def table(measured: Compared) -> list[str]:
    """One line for each load."""
    lines = [
        "| load | requests/s | p50, ms | p99, ms | server CPU a request, us | failed |",
        "|---|---|---|---|---|---|",
    ]
    figures: tuple[Figure, ...] = (
        lambda run: run.per_second,
        lambda run: run.p50_ms,
        lambda run: run.p99_ms,
        lambda run: run.cpu_us,
    )
    for load in measured.loads:
        failed = " : ".join(str(measured.total(name, load, lambda run: run.failed)) for name in (OURS, TRITON))
        lines.append(row([title(load), *(versus(measured, load, figure) for figure in figures), failed]))
    return [*lines, ""]


def verdict(measured: Compared) -> list[str]:
    """Where we are not behind, and where we are."""
    kept: list[str] = []
    missed: list[str] = []
    for load in measured.loads:
        found = measured.ratio(OURS, TRITON, load, lambda run: run.cpu_us)
        (kept if found is not None and found <= 1 else missed).append(title(load))
    return paragraph(
        f"No more server CPU a request than {TRITON}: **kept** at {', '.join(kept) or 'no load'}; "
        f"**missed** at {', '.join(missed) or 'no load'}."
    )


def stalls(measured: Compared) -> list[str]:
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


def client(measured: Compared) -> list[str]:
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


def versus(measured: Compared, load: Load, figure: Figure) -> str:
    """Both medians and the median ratio."""
    ours, theirs = (short(measured.median(name, load, figure)) for name in (OURS, TRITON))
    return f"{ours} : {theirs} = {ratio(measured.ratio(OURS, TRITON, load, figure))}"


def title(load: Load) -> str:
    """`8 in flight`, `400/s`."""
    flag, level = load
    return f"{level} in flight" if flag == "--concurrency" else f"{level}/s"
