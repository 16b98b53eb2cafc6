"""What a small model's clients notice of a large model under full load on the same server.

    PYTHONPATH=. python benchmarks/sharing.py
    PYTHONPATH=. python benchmarks/sharing.py --backends onnx_runtime --threads 1 --lengths 128 128

The small one is the reference LSTM in ONNX Runtime on one thread, asked for one row of 24 steps at a steady rate; what counts is
the time from the instant at which a request was due. The large one has two layers of 512, up to 64 rows a batch, and more
clients than two batches hold, each of which asks again as soon as it is answered. Rounds alternate: alone, beside; the table
has their medians. The large model's client is at the lowest priority of the system. What both clients and all other processes
took of a core is told; where that was much, a round is repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import reference
from benchmarks.peers.cpu import cpu_seconds
from loadtest.calls import OK, UnaryCalls
from loadtest.endpoint import Endpoint
from models.config import LSTMConfig
from protos import grpc_service_pb2 as pb
from serving import backends
from serving.launch import LaunchedServer

SMALL, LARGE = "reference", "large"
CONFIG = LSTMConfig(features=8, layers=2, hidden=512, head="values", outputs=1)
ROWS, IN_FLIGHT = 64, 160
RATE = 100.0  # requests a second to the small model
TIMEOUT_SECONDS = 600.0
HEAD = (
    "large model",
    "threads",
    "",
    "p50, ms",
    "p99, ms",
    "longest, ms",
    "its rows/s",
    "% of a core: clients, others",
    "p99, times alone",
)
ATTEMPTS, QUIET = 6, 0.1  # rounds, until other processes take less of a core than that
IDLE = 0.05  # a server takes no more of a core than that when nobody asks


class Round(NamedTuple):
    """Latencies in ms; shares of a core: of all other processes, of the small model's client, of the large one's; its rows."""

    p50: float
    p99: float
    longest: float
    others: float
    client: float
    other_client: float = 0.0
    rows_per_second: float = 0.0


def payload(model: str, steps: int) -> bytes:
    """One row of so many steps."""
    x = np.full((1, steps, CONFIG.features), 0.5, np.float32)
    asked = pb.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return asked.SerializeToString()


def export(repository: Path) -> None:
    """Writes both models, the large one in every format."""
    reference.export(repository, ("onnx",))
    with tempfile.TemporaryDirectory() as folder:
        small, reference.CONFIG = reference.CONFIG, CONFIG
        reference.export(Path(folder))
        reference.CONFIG = small
        shutil.move(Path(folder) / reference.NAME, repository / LARGE)


def configure(repository: Path, backend: str, threads: int) -> None:
    """The small model is always the same; the large one is computed so."""
    for name, chosen, count in ((SMALL, "onnx_runtime", 1), (LARGE, backend, threads)):
        text = f'name: "{name}" backend: "{chosen}" max_batch_size: {ROWS} dynamic_batching {{}}\n'
        text += f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{count}" }} }}\n'
        (repository / name / "config.pbtxt").write_text(text)


def load_for_ever(address: str, lengths: Sequence[int]) -> None:
    """The large model's clients, in one process; for each line that it reads it tells how many were answered, and its seconds."""
    os.nice(19)
    drawn = random.Random(0)
    asked = [payload(LARGE, drawn.randint(*lengths)) for _ in range(1000)]
    calls = UnaryCalls(Endpoint(address), TIMEOUT_SECONDS)
    answered = 0

    def tell() -> None:
        for _ in sys.stdin:
            print(answered, time.process_time(), flush=True)

    threading.Thread(target=tell, daemon=True).start()
    for number in range(IN_FLIGHT):
        calls.send(asked[number], 0)
    while True:
        for answer in calls.receive() or ():
            assert answer.code == OK, answer.details
            answered += 1
            calls.send(asked[answered % len(asked)], 0)


class Load:
    """That process, from its first answers on."""

    def __init__(self, address: str, lengths: Sequence[int]) -> None:
        command = [sys.executable, __file__, "--load", address, "--lengths", *map(str, lengths)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        while not self.told()[0]:
            time.sleep(0.1)

    def told(self) -> tuple[int, float]:
        """How many were answered, and the processor's seconds."""
        assert self.process.stdin
        assert self.process.stdout
        print(file=self.process.stdin, flush=True)
        answered, seconds = self.process.stdout.readline().split()
        return int(answered), float(seconds)

    def end(self) -> None:
        with self.process:
            self.process.kill()


def ask(address: str, seconds: float) -> tuple[list[float], float]:
    """Latencies in ms of the small model's requests at the steady rate, and the share of a core that this client takes."""
    drawn, asked, taken = random.Random(0), payload(SMALL, reference.STEPS), []
    calls = UnaryCalls(Endpoint(address), TIMEOUT_SECONDS)
    begun, computed = time.perf_counter(), time.process_time()
    due = begun
    for _ in range(int(seconds * RATE)):
        due += drawn.uniform(0.5, 1.5) / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        calls.send(asked, 0)
        (answer,) = calls.receive() or ()
        taken.append((time.perf_counter() - due) * 1e3)
        assert answer.code == OK, answer.details
    share = (time.process_time() - computed) / (time.perf_counter() - begun)
    calls.close()
    return taken, share


def settle(pid: int) -> None:
    """Waits until the server has nothing more to compute."""
    while True:
        before = cpu_seconds(pid)
        time.sleep(1.0)
        if cpu_seconds(pid) - before < IDLE:
            return


def busy_seconds() -> float:
    """Processors' seconds of everything on this machine, since it has started (Linux)."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # less idle, and idle while a disk works


def measured(server: LaunchedServer, seconds: float, lengths: Sequence[int] | None) -> Round:
    """The small model alone, or beside the large one under a load of such lengths."""
    settle(server.process.pid)
    load = Load(server.address, lengths) if lengths else None
    begun, (answered, computed) = time.perf_counter(), load.told() if load else (0, 0.0)
    others = cpu_seconds(server.process.pid) - busy_seconds()
    taken, client = ask(server.address, seconds)
    others += busy_seconds() - cpu_seconds(server.process.pid)
    elapsed, (more, later) = time.perf_counter() - begun, load.told() if load else (0, 0.0)
    if load:
        load.end()
    other_client = (later - computed) / elapsed
    others = others / elapsed - client - other_client
    return Round(*figures(taken), others, client, other_client, (more - answered) / elapsed)


def quiet(server: LaunchedServer, seconds: float, lengths: Sequence[int] | None) -> Round:
    """The same, again where other processes have taken much of the machine; at last, the quietest of them."""
    rounds: list[Round] = []
    while len(rounds) < ATTEMPTS and (not rounds or rounds[-1].others > QUIET):
        rounds.append(measured(server, seconds, lengths))
    return min(rounds, key=lambda one: one.others)


def figures(taken: Sequence[float]) -> tuple[float, float, float]:
    """p50, p99 and the longest."""
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49], cuts[98], max(taken)


def medians(rounds: Sequence[Round]) -> Round:
    return Round(*map(statistics.median, zip(*rounds, strict=True)))


@contextlib.contextmanager
def models(kept: Path | None) -> Iterator[Path]:
    """A repository with both models, made where there is none yet."""
    with tempfile.TemporaryDirectory() as folder:
        repository = kept or Path(folder)
        if not (repository / LARGE).exists():
            export(repository)
        yield repository


def main() -> int:
    parser = argparse.ArgumentParser(description="What a small model notices of a large one under full load.")
    parser.add_argument("--backends", nargs="+", default=backends.PREFERENCE, help="of the large model")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, os.cpu_count() or 1}), help="of it")
    parser.add_argument("--lengths", nargs=2, type=int, default=(1, 256), metavar="STEPS", help="of its requests")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--repository", type=Path, help="where the models are kept; made anew where this is left out")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        load_for_ever(asked.load, asked.lengths)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    with models(asked.repository) as repository:
        for backend in asked.backends:
            for threads in asked.threads:
                configure(repository, backend, threads)
                with LaunchedServer(repository, timeout_seconds=TIMEOUT_SECONDS) as server:
                    rounds = [
                        (quiet(server, asked.seconds, None), quiet(server, asked.seconds, asked.lengths))
                        for _ in range(asked.rounds)
                    ]
                alone, beside = (medians(each) for each in zip(*rounds, strict=True))
                for name, one in (("alone", alone), ("beside", beside)):
                    shares = " + ".join(f"{100 * share:.0f}" for share in (one.client, one.other_client, one.others))
                    times = f"{one.p50:.2f} | {one.p99:.2f} | {one.longest:.1f} | {one.rows_per_second:.0f} | {shares}"
                    print(f"| {backend} | {threads} | {name} | {times} | {one.p99 / alone.p99:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
