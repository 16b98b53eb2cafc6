"""What each loop of `lstm-loadtest` sees of a server that stands still, and what the load test itself costs.

    python benchmarks/stalls.py --report docs/loadtest.md

This server and the real Triton are stopped for a second in the middle of a run; then Triton gets more than it can do. The
figures replace what stands behind the mark in the report. `make bench-loadtest` runs it; it takes a minute, and the first
time it installs Triton.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers import load_test
from benchmarks.peers.bench import Bench, Effort
from benchmarks.peers.server import MODEL, OURS, TRITON, Server
from benchmarks.peers.text import paragraph, row, short
from loadtest.result import COORDINATED_OMISSION

Load = tuple[str, str]  # a flag of the load test and its value
STALLS: tuple[Load, ...] = (("--rate", "200"), ("--concurrency", "2"))
STALL_SECONDS = 1.0
MOST: tuple[Load, ...] = (("--concurrency", "128"), ("--rate", "12000"))
MARK = "<!-- what follows is written by: make bench-loadtest -->"


def main() -> int:
    parser = argparse.ArgumentParser(description="What lstm-loadtest sees of a stall, and what it costs itself.")
    parser.add_argument("--environments", type=Path, default=Path(".envs"), help="the folder of Triton's environment")
    parser.add_argument("--report", type=Path, required=True, help="the page whose figures are replaced")
    asked = parser.parse_args()
    prose, mark, _ = asked.report.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        parser.error(f"{asked.report} has no line {MARK!r}")
    stalls: dict[tuple[str, Load], dict[str, Any]] = {}
    most: dict[Load, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(asked.environments.absolute(), Path(folder), Effort(seconds=3.0))
        bench.prepare(TRITON)
        for name in (OURS, TRITON):
            with bench.serve(name) as server:
                for load in STALLS:
                    stalls[name, load] = stalled(server, load)
                for load in MOST if name == TRITON else ():
                    most[load] = begin(server, load, 3.0).result()
    figures = "\n".join([*told_stalls(stalls), *told_client(most)]) + "\n"
    asked.report.write_text(f"{prose}{mark}\n\n{figures}", encoding="utf-8")
    print(figures, end="")
    return 0


def begin(server: Server, load: Load, seconds: float) -> load_test.LoadTest:
    """A run of so many seconds, and one of warming up before."""
    return load_test.LoadTest(*server.flags, "--model", MODEL, *load, seconds=seconds)


def stalled(server: Server, load: Load) -> dict[str, Any]:
    """One run of five seconds, in the middle of which the server is stopped for one."""
    before = server.answered()
    test = begin(server, load, 5.0)
    while server.answered() == before:
        time.sleep(0.05)
    time.sleep(3)  # the warm-up, and two of the five seconds
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(STALL_SECONDS)
    os.kill(server.pid, signal.SIGCONT)
    return test.result()


def told_stalls(stalls: Mapping[tuple[str, Load], Mapping[str, Any]]) -> list[str]:
    """What each loop has seen of a stall, and what the closed one says of it."""
    lines = [
        *paragraph(
            f"Each server was stopped (SIGSTOP) for a second in the middle of a run of 5 s. Python "
            f"{platform.python_version()}; {os.cpu_count()} cores ({platform.machine()}), which servers and load test share."
        ),
        "| server | loop | load | p50, ms | p99, ms | max, ms |",
        "|---|---|---|---|---|---|",
    ]
    for (name, load), run in stalls.items():
        latencies = [short(run["latency_seconds"][key] * 1e3) for key in ("p50", "p99", "max")]
        lines.append(row([name, run["mode"], title(load), *latencies]))
    said = {note for run in stalls.values() for note in run["notes"] if note == COORDINATED_OMISSION}
    return [*lines, "", *(line for note in said for line in paragraph(f'Beside the closed one stands: "{note}".'))]


def told_client(most: Mapping[Load, Mapping[str, Any]]) -> list[str]:
    """What the load test itself can do, by its own CPU time."""
    lines = [
        *paragraph(
            f"What one core of `lstm-loadtest` drives, by the CPU time that it used under loads that were too much for "
            f"{TRITON} here:"
        ),
        "| load | requests/s | cores used | CPU a request, us | one core drives, requests/s | said by the load test |",
        "|---|---|---|---|---|---|",
    ]
    for load, run in most.items():
        cost = run["client"]["cpu_seconds_per_request"]
        drives = f"{float(f'{1 / cost:.2g}'):,.0f}"
        said = "; ".join(note for note in run["notes"] if note != COORDINATED_OMISSION) or "nothing"
        cores = f"{run['client']['cpu_cores']:.2f}"
        lines.append(row([title(load), short(run["throughput_per_second"]), cores, short(cost * 1e6), drives, said]))
    return lines


def title(load: Load) -> str:
    """`8 in flight`, `400/s`."""
    flag, level = load
    return f"{level} in flight" if flag == "--concurrency" else f"{level}/s"


if __name__ == "__main__":
    sys.exit(main())
