"""perf_analyzer, a client that no one here wrote, with a guard: release 2.50 often does not exit after its last answer.

It is ended when the server has been idle for a second and has counted every request. The CPU time of such a run is as good
as any; its latencies are lost, so it is tried again for these.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.cpu import cpu_seconds
from benchmarks.peers.errors import PeerError
from benchmarks.peers.measured import Figures
from benchmarks.peers.server import MODEL, Server

TRIES = 3
_SECONDS = 60.0  # a run
_IDLE_SECONDS, _IDLE_CORES = 1.0, 0.03  # a server that uses less than this does nothing
_SCRIPT = Path(__file__).parents[1] / "perf_analyzer.sh"


def install(environment: Path, python: str) -> None:
    """Puts it into a folder, once. Raises `PeerError` with pip's last words."""
    if (environment / "perf_analyzer").exists():
        return
    command = ["sh", str(_SCRIPT), "install", python, str(environment)]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if made.returncode:
        raise PeerError(f"perf_analyzer cannot be had: {made.stderr[-1500:]}")


def drive(environment: Path, server: Server, flags: Sequence[str], requests: int, shape: str = "x:24,8") -> Figures:
    """So many requests of that shape. Raises `PeerError` if it fails, or has not got its answers after a minute."""
    used, counted = 0.0, 0
    told: tuple[float, float] | None = None
    for _ in range(TRIES):
        start, before = _count(server), cpu_seconds(server.pid)
        told = _run(environment, server, [*flags, "--shape", shape], requests, start)
        used += cpu_seconds(server.pid) - before
        counted += _count(server) - start
        if told:
            break
    p50_ms, p99_ms = told or (None, None)
    return Figures(cpu_us=used / counted * 1e6, requests=counted, p50_ms=p50_ms, p99_ms=p99_ms)


def latencies(text: str) -> tuple[float, float]:
    """p50 and p99 in milliseconds out of its CSV, which has them in microseconds.

    Its requests a second are not read: with a number of requests instead of a time they are that number.
    Raises `PeerError` for a report that has not got them.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    try:
        (row,) = rows
        return float(row["p50 latency"]) / 1e3, float(row["p99 latency"]) / 1e3
    except (ValueError, KeyError) as error:
        raise PeerError(f"this report of perf_analyzer has not got one row of latencies: {text[:300]!r}") from error


def _run(
    environment: Path, server: Server, flags: Sequence[str], requests: int, start: int
) -> tuple[float, float] | None:
    """One run to its end; None if it had to be ended after its last answer. `start` is what the server has counted before."""
    with tempfile.TemporaryDirectory() as name:
        report, said = Path(name, "report.csv"), Path(name, "said")
        command = ["sh", str(_SCRIPT), "run", str(environment), "-m", MODEL, "-i", "grpc", "-u", server.address]
        command += ["--async", "--request-count", str(requests), "-f", str(report), *flags]
        with said.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            if not _ended(process, server, start + requests):
                return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            raise PeerError(f"perf_analyzer has ended with {process.returncode}: {said.read_text()[-1000:]}")
        return latencies(report.read_text())


def _ended(process: subprocess.Popen[bytes], server: Server, awaited: int) -> bool:
    """Waits until it exits (True), or the server is idle and has answered so many (False). Raises `PeerError`."""
    limit = time.monotonic() + _SECONDS
    while time.monotonic() < limit:
        before = cpu_seconds(server.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_IDLE_SECONDS)
            return True
        idle = cpu_seconds(server.pid) - before < _IDLE_SECONDS * _IDLE_CORES
        if idle and _count(server) >= awaited:
            return False
    raise PeerError(f"perf_analyzer has not got its answers after {_SECONDS:g} s")


def _count(server: Server) -> int:
    counted = server.answered()
    if counted is None:
        raise PeerError(f"{server.name} has no ModelStatistics, and perf_analyzer does not say what it has sent")
    return counted
