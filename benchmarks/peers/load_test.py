"""`lstm-loadtest` as a process of its own, as a user would start it: closed loops and an open one, each in one thread."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.cpu import cpu_seconds
from benchmarks.peers.errors import PeerError
from benchmarks.peers.measured import Figures
from benchmarks.peers.server import MODEL, Server

ROOT = Path(__file__).parents[2]
_FAILED = 0.01  # of all requests: a server that fails more of them has not been measured
_MORE_SECONDS = 30.0  # than the load itself lasts: start, last answers, end


class LoadTest:
    """One run that has begun; `result` waits for it."""

    def __init__(self, *flags: str, seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._json = Path(self._folder.name) / "runs.json"
        self._seconds = seconds
        self._command = [
            sys.executable,
            "-m",
            "loadtest",
            *flags,
            "--duration",
            f"{seconds:g}",
            "--json",
            str(self._json),
        ]
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def result(self) -> dict[str, Any]:
        """Its one run. Raises `PeerError` with its last words if it could not measure."""
        with self._folder:
            try:
                _, said = self._process.communicate(timeout=self._seconds + _MORE_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise PeerError(f"{' '.join(self._command)} did not end in time") from error
            finally:
                self._process.kill()
                self._process.wait()
            if self._process.returncode:
                raise PeerError(f"lstm-loadtest has ended with {self._process.returncode}: {said[-500:]}")
            (run,) = json.loads(self._json.read_text())["runs"]
            return dict(run)


def drive(server: Server, flags: Sequence[str], seconds: float) -> Figures:
    """One run, with the server's CPU time around it. The divisor is the server's own count, where it keeps one.

    Raises `PeerError` if requests failed, or if server and client have not counted the same.
    """
    counted, before = server.answered(), cpu_seconds(server.pid)
    run = LoadTest(*server.flags, "--model", MODEL, "--warm-up", "0", *flags, seconds=seconds).result()
    used = cpu_seconds(server.pid) - before
    requests, failed = run["succeeded"], run["failed"]
    if failed >= _FAILED * (requests + failed):
        raise PeerError(f"{failed} of {requests + failed} requests failed: {run['error_messages']}")
    if counted is not None and not failed and (now := server.answered()) != counted + requests:
        raise PeerError(f"the client has {requests} answers, and the server has counted {(now or 0) - counted}")
    latency = run["latency_seconds"]
    return Figures(
        cpu_us=used / requests * 1e6,
        requests=requests,
        per_second=run["throughput_per_second"],
        p50_ms=latency["p50"] * 1e3,
        p99_ms=latency["p99"] * 1e3,
        failed=failed,
        unsent=run["client"]["not_sent"],
        saturated=run["saturated"],
    )
