"""A peer's server as a process group of its own, of which nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.peers.errors import PeerError
from loadtest.endpoint import Endpoint
from loadtest.errors import LoadTestError
from loadtest.target import connect

_READY_SECONDS, _STOP_SECONDS = 60.0, 20.0


@contextlib.contextmanager
def running(
    command: Sequence[str], endpoint: Endpoint, model: str, folder: Path, environ: Mapping[str, str] | None = None
) -> Iterator[int]:
    """The PID of a server that has answered for the model; it and its children end with the block.

    `folder` is its working directory and takes its log. Raises `PeerError` with the end of the log if it is not ready in time.
    """
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_for(process, endpoint, model, log)
        yield process.pid
    finally:
        _end(process)


def free_ports(count: int) -> list[int]:
    """So many ports of this machine that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait_for(process: subprocess.Popen[bytes], endpoint: Endpoint, model: str, log: Path) -> None:
    limit = time.monotonic() + _READY_SECONDS
    why = "it has not answered"
    while process.poll() is None and time.monotonic() < limit:
        try:
            with connect(endpoint, 1.0) as target:
                target.model(model, "")
                return
        except LoadTestError as error:
            why = str(error)
            time.sleep(0.1)
    words = log.read_text(errors="replace")[-1500:]
    raise PeerError(f"not ready (exit code {process.poll()}): {why}; its last words:\n{words}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group: SIGTERM, and SIGKILL for what is then left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
