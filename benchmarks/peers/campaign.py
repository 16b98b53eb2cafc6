"""All loads on all servers, A B C A B C. Who fails is written down, and the others go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.peers.bench import Bench
from benchmarks.peers.errors import PeerError
from benchmarks.peers.load import MANY, MUTUAL_TLS, OPEN, PERF, PLAIN, TLS, Load, takes
from benchmarks.peers.measured import Measured
from benchmarks.peers.server import TRITON, Server
from benchmarks.peers.text import short
from serving.errors import StartupError

SHARE_OF_TRITON = 0.7  # of its capacity, in the open loop


def run(bench: Bench, servers: Sequence[str], loads: Sequence[Load], rounds: int) -> Measured[Load]:
    """Installs what is missing, then measures."""
    measured: Measured[Load] = Measured(rounds)
    present = [name for name in servers if _prepared(bench, name, measured)]
    wanted = list(loads)
    if any(load.client == PERF for load in wanted):
        try:
            bench.prepare_perf_analyzer()
        except PeerError as error:
            measured.failures[PERF, None] = str(error)
            wanted = [load for load in wanted if load.client != PERF]
    if any(load.client == OPEN for load in wanted):
        try:
            bench.prepare(TRITON)
            measured.rate = SHARE_OF_TRITON * bench.capacity(TRITON, MANY)
        except PeerError as error:
            measured.failures[OPEN, None] = f"its rate is a share of what {TRITON} does, and that is not known: {error}"
            wanted = [load for load in wanted if load.client != OPEN]
    for number in range(rounds):
        for name in present:
            for connection in (PLAIN, TLS, MUTUAL_TLS):
                chosen = [load for load in wanted if load.connection == connection and takes(name, load)]
                if chosen:
                    _turn(bench, name, chosen, number, measured)
    return measured


def _prepared(bench: Bench, name: str, measured: Measured[Load]) -> bool:
    try:
        bench.prepare(name)
    except (PeerError, StartupError) as error:
        measured.failures[name, None] = str(error)
        _say(f"{name} is left out: {error}")
        return False
    return True


def _turn(bench: Bench, name: str, loads: Sequence[Load], number: int, measured: Measured[Load]) -> None:
    """One server's turn in one round: started once for all of these loads, and anew after one that fails, as it may have died."""
    left = list(loads)
    try:
        while left:
            with bench.serve(name, loads[0].connection) as server:
                while left and _measured(bench, server, left.pop(0), number, measured):
                    continue
    except (PeerError, StartupError) as error:
        measured.failures[name, None] = str(error)
        _say(f"round {number + 1}: {name}: {error}")


def _measured(bench: Bench, server: Server, load: Load, number: int, measured: Measured[Load]) -> bool:
    """Whether it could be."""
    began = time.monotonic()
    what = f"round {number + 1}: {server.name}, {load.title(measured.rate)}"
    try:
        figures = bench.drive(server, load, measured.rate or 0.0)
    except (PeerError, ProcessLookupError) as error:
        measured.failures[server.name, load] = str(error)
        _say(f"{what}: {error}")
        return False
    measured.add(server.name, load, number, figures)
    _say(f"{what}: {figures.cpu_us:.0f} us, p99 {short(figures.p99_ms)} ms; {time.monotonic() - began:.0f} s")
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
