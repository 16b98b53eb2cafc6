"""`lstm-serve` and the real Triton as `lstm-loadtest` sees them: both of its loops, a stall, and what the load test itself costs.

    python benchmarks/compare_triton.py --report docs/loadtest.md

Makes Triton's environment if it is not there, then starts the two servers in turn and drives each with `lstm-loadtest`. The
figures replace what stands behind the mark in the report. `make loadtest-triton` runs it; it takes some four minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from triton_report import Compared, Load, render

from benchmarks.peers import load_test
from benchmarks.peers.bench import Bench, Effort
from benchmarks.peers.server import MODEL, OURS, TRITON, Server

ROUNDS = 3
LOADS = (
    *(("--concurrency", level) for level in ("1", "8", "32")),
    *(("--rate", level) for level in ("100", "400", "1600")),
)
STALLS = (("--rate", "200"), ("--concurrency", "2"))
STALL_SECONDS = 1.0
MOST = (("--concurrency", "128"), ("--rate", "12000"))
MARK = "<!-- what follows is written by: make loadtest-triton -->"


def main() -> int:
    parser = argparse.ArgumentParser(description="lstm-serve and the real Triton as lstm-loadtest sees them.")
    parser.add_argument("--environments", type=Path, default=Path(".envs"), help="the folder of Triton's environment")
    parser.add_argument("--report", type=Path, required=True, help="the page whose figures are replaced")
    asked = parser.parse_args()
    prose, mark, _ = asked.report.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        parser.error(f"{asked.report} has no line {MARK!r}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(asked.environments.absolute(), Path(folder), Effort(seconds=3.0))
        bench.prepare(TRITON)
        figures = render(compare(bench))
    asked.report.write_text(f"{prose}{mark}\n\n{figures}", encoding="utf-8")
    print(figures, end="")
    return 0


def compare(bench: Bench) -> Compared:
    """Runs everything, the servers in turn, in every round."""
    measured = Compared(ROUNDS)
    order = [OURS, TRITON]
    for number in range(ROUNDS):
        for name in order:
            with bench.serve(name, tls=False) as server:
                for load in LOADS:
                    print(f"round {number + 1} of {ROUNDS}: {name}, {' '.join(load)}", file=sys.stderr, flush=True)
                    measured.add(name, load, number, load_test.drive(server, load, bench.effort.seconds))
                for load in STALLS if number == 0 else ():
                    print(f"{name}, paused, {' '.join(load)}", file=sys.stderr, flush=True)
                    measured.stalls[name, load] = stalled(server, load)
                for load in MOST if number == 0 and name == TRITON else ():
                    print(f"{name}, the most, {' '.join(load)}", file=sys.stderr, flush=True)
                    measured.most[load] = load_test.LoadTest(*server.flags, "--model", MODEL, *load, seconds=3).result()
        order.reverse()
    return measured


def stalled(server: Server, load: Load) -> dict[str, Any]:
    """One run of five seconds, in the middle of which the server is stopped for one."""
    before = server.answered()
    test = load_test.LoadTest(*server.flags, "--model", MODEL, *load, seconds=5)
    while server.answered() == before:
        time.sleep(0.05)
    time.sleep(3)  # the warm-up, and two of the five seconds
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(STALL_SECONDS)
    os.kill(server.pid, signal.SIGCONT)
    return test.result()


if __name__ == "__main__":
    sys.exit(main())
