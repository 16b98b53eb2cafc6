"""Swapping backends, loading and unloading while requests flow: does anybody notice?

    python benchmarks/swaps.py --repository model_repository --report docs/swaps.md

A model is asked by 16 clients in a closed loop, from a process of its own, while its backend is swapped 50 times; while
another model is loaded; right after a load; and when they come while a server that chooses its backends is measuring one. Then
each backend is loaded and unloaded a hundred times. The figures replace what stands behind the mark in the report. `make
bench-swaps` runs it; it takes some ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
from swaps_client import Load, golden_requests
from swaps_report import First, Interrupted, Loading, Measured, Process, Steady, Swap, render

from admin.server import Server
from protos.model_config_pb2 import ModelConfig
from serving import backends
from serving.launch import LaunchedServer
from serving.repository.folders import VersionFolder

MODEL, OTHER = "vowels_torch", "weather_torch"
CLIENTS = 16
SWAPS = 50
SWAP_LOOKS = (6, 27, 48)  # after these ONNX Runtime serves
SETTLE_SECONDS, STEADY_SECONDS = 0.5, 1.0  # after a swap, until it counts as over; and how long nothing happens then
LOADS, LOOKS = 100, (5, 50, 100)
BESIDE_SECONDS = 1.0  # how long a model is asked before another is loaded
LATER = 4  # loads after the first in a process
FIRST = 1000  # requests after a load
RUNS = 3
BURSTS = 5  # for each backend
BURST_SECONDS = 1.0  # of clients that all come at once
QUIET_SECONDS = 2.0  # between two bursts: too short for a measurement
PATIENCE_SECONDS = 120.0  # until one has begun
INFER = "/inference.GRPCInferenceService/ModelInfer"
MARK = "<!-- what follows is written by: make bench-swaps -->"


def main() -> int:
    parser = argparse.ArgumentParser(description="What swapping, loading and unloading cost those who are served.")
    parser.add_argument("--repository", type=Path, required=True, help=f"it holds {MODEL} and {OTHER} in every format")
    parser.add_argument("--report", type=Path, required=True, help="the page whose figures are replaced")
    parser.add_argument(
        "--only", choices=("swaps", "memory", "beside", "first", "measuring"), help="print one part, write nothing"
    )
    asked = parser.parse_args()
    prose, mark, _ = asked.report.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        parser.error(f"{asked.report} has no line {MARK!r}")
    measures = {"swaps": swap, "beside": beside, "first": first_requests, "measuring": measuring, "memory": memory}
    measured = Measured(tolerance=version(asked.repository).spec().tolerance)
    for name, measure in measures.items():
        if asked.only in (None, name):
            measure(asked.repository, measured)
    figures = render(measured)
    if not asked.only:
        asked.report.write_text(f"{prose}{mark}\n\n{figures}", encoding="utf-8")
    print(figures, end="")
    return 0


def swap(repository: Path, measured: Measured) -> None:
    """Fifty swaps in a row of a model that is being asked, with steady times between them."""
    with launched(repository, MODEL) as server, operator(server) as admin, load(server, repository) as asking:
        order = itertools.cycle(backends.PREFERENCE)
        serving, met = next(order), {backends.PREFERENCE[0]}
        steady, swaps = [], []
        for number, backend in enumerate(itertools.islice(order, SWAPS)):
            time.sleep(SETTLE_SECONDS)
            steady.append((serving, *lasting(STEADY_SECONDS)))
            begin = time.monotonic_ns()
            admin.load(MODEL, ModelConfig(backend=backend))
            end = time.monotonic_ns()
            swaps.append((serving, backend, backend not in met, begin, end))
            say(f"swap {number + 1} of {SWAPS}: {serving} to {backend} in {(end - begin) / 1e9:.2f} s")
            if number + 1 in SWAP_LOOKS:
                measured.processes.append(look("all in turn, under load", number + 1, server.process.pid))
            serving = backend
            met.add(backend)
        time.sleep(SETTLE_SECONDS)
        record = asking.end()
    settle = int(SETTLE_SECONDS * 1e9)
    measured.steady = [Steady(backend, record.within(begin, end)) for backend, begin, end in steady]
    measured.swaps = [
        Swap(old, new, first, (end - begin) / 1e9, record.within(begin, end + settle))
        for old, new, first, begin, end in swaps
    ]
    measured.note(record)


def beside(repository: Path, measured: Measured) -> None:
    """A model is asked while another is loaded: for the first time in the process, and some more times."""
    for run, backend in itertools.product(range(RUNS), backends.PREFERENCE):
        say(f"loading {OTHER} in {backend} beside {MODEL}, run {run + 1} of {RUNS}")
        with launched(repository, MODEL) as server, operator(server) as admin, load(server, repository) as asking:
            spans = []
            for _ in range(1 + LATER):
                time.sleep(SETTLE_SECONDS)
                before = lasting(BESIDE_SECONDS)
                begin = time.monotonic_ns()
                admin.load(OTHER, ModelConfig(backend=backend))
                end = time.monotonic_ns()
                admin.call("RepositoryModelUnload", model_name=OTHER)
                time.sleep(max(0.0, 1.0 - (time.monotonic_ns() - begin) / 1e9))
                spans.append((before, (begin, end), (begin, max(end, begin + 10**9))))
            record = asking.end()
        for first, those in ((True, spans[:1]), (False, spans[1:])):
            seconds = statistics.median((end - begin) / 1e9 for _, (begin, end), _ in those)
            parts = (np.concatenate([record.within(*span) for span in kind]) for kind in zip(*those, strict=True))
            measured.loadings.append(Loading(backend, first, seconds, *parts))
        measured.note(record)


def first_requests(repository: Path, measured: Measured) -> None:
    """The first thousand requests after a load, and a thousand later ones, of lengths that no warm-up has seen."""
    for backend in backends.PREFERENCE:
        with launched(repository) as server, operator(server) as admin:
            for run in range(RUNS):
                say(f"the first {FIRST} requests to {MODEL} in {backend}, load {run + 1} of {RUNS}")
                admin.load(MODEL, ModelConfig(backend=backend))
                with load(server, repository, unseen=3 * FIRST) as asking:
                    record = asking.end()
                admin.call("RepositoryModelUnload", model_name=MODEL)
                measured.firsts.append(First(backend, *(record.latencies(n, FIRST) for n in (0, 2 * FIRST))))
                measured.note(record)


def measuring(repository: Path, measured: Measured) -> None:
    """Clients come while a backend is being measured, and again when none is; each time all at once, after a silence."""
    for run, backend in itertools.product(range(BURSTS), backends.PREFERENCE):
        say(f"clients come while {backend} is being measured, run {run + 1} of {BURSTS}")
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder)  # nothing is known in it from before
            shutil.copytree(repository / MODEL, fresh / MODEL, ignore=shutil.ignore_patterns(".*"))
            with LaunchedServer(fresh, "--auto-cache", "off") as server:
                burst(server, fresh, measured)  # the first requests of a process are another matter
                wait_until_measuring(server, backend)
                meanwhile = burst(server, fresh, measured)
                time.sleep(QUIET_SECONDS)
                without = burst(server, fresh, measured)
                server.wait_for("measured another time: clients ask", PATIENCE_SECONDS)
        measured.interrupted.append(Interrupted(backend, without, meanwhile))


def wait_until_measuring(server: LaunchedServer, backend: str) -> None:
    """Until that backend is being measured."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not any(one["message"] == "measuring" and one["backend"] == backend for one in server.log()):
        if time.monotonic() > until:
            raise RuntimeError(f"{backend} was not measured within {PATIENCE_SECONDS:g} s")
        time.sleep(0.01)


def burst(server: LaunchedServer, repository: Path, measured: Measured) -> np.ndarray:
    """The latencies, in seconds, of the first second in which the clients ask."""
    with load(server, repository) as asking:
        time.sleep(BURST_SECONDS)
        record = asking.end()
    measured.note(record)
    begin = int(record.sent.min())
    return record.within(begin, begin + int(BURST_SECONDS * 1e9))


def memory(repository: Path, measured: Measured) -> None:
    """What a server holds after so many loads and unloads, with some requests to each."""
    for backend in backends.PREFERENCE:
        with launched(repository) as server, operator(server) as admin:
            send = grpc.insecure_channel(server.address).unary_unary(INFER)
            requests = [payload for payload, _ in golden_requests(version(repository), MODEL)]
            for number in range(1, LOADS + 1):
                admin.load(MODEL, ModelConfig(backend=backend))
                for payload in requests:
                    send(payload, timeout=30)
                admin.call("RepositoryModelUnload", model_name=MODEL)
                if number in LOOKS:
                    time.sleep(SETTLE_SECONDS)
                    measured.processes.append(look(backend, number, server.process.pid))
                    say(str(measured.processes[-1]))


def look(backend: str, loads: int, pid: int) -> Process:
    """The resident set in MB (10^6 bytes), the file descriptors and the threads of a process, as they are now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    resident = int(status["VmRSS"].split()[0]) * 1024 / 1e6
    return Process(backend, loads, resident, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"]))


def launched(repository: Path, *names: str) -> LaunchedServer:
    """A server that loads what it is asked to, and at start these models in ONNX Runtime."""
    return LaunchedServer(
        repository,
        *("--model-control-mode", "explicit", "--backend", backends.PREFERENCE[0], "--fallback", "none"),
        *(flag for name in names for flag in ("--load-model", name)),
    )


def operator(server: LaunchedServer) -> Server:
    """Whoever asks the server to load and unload."""
    return Server(server.address, None, (), 120.0)


def load(server: LaunchedServer, repository: Path, *, unseen: int = 0) -> Load:
    """The 16 clients of the model."""
    return Load(server.address, version(repository).path, MODEL, CLIENTS, unseen=unseen)


def version(repository: Path) -> VersionFolder:
    """The version that is asked."""
    return VersionFolder(1, repository / MODEL / "1")


def lasting(seconds: float) -> tuple[int, int]:
    """Waits; from when to when."""
    begin = time.monotonic_ns()
    time.sleep(seconds)
    return begin, time.monotonic_ns()


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
