"""What it costs that sequences survive, and how soon they go on.

    python -m benchmarks.sequence_store                      # CPU of a step with and without a store, in turn
    python -m benchmarks.sequence_store --restart 100000     # sequences that are live when the server is killed

The first has 64 sequences of the reference LSTM on 8 streams in a closed loop, against servers with the states in memory, in a
store that outlives the process, and in one that outlives the machine's power; the medians of rounds in turn, with and without
numbered steps, and with answers of 256 bytes and more. The second begins so many sequences, kills the server, and prints how long
the next one takes to be ready, beside one with an empty store, and from the start of its process until all of them live again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import reference, sequences_client
from benchmarks.peers.cpu import cpu_seconds
from benchmarks.sequence_states import STREAMS, begin_all
from models.config import LSTMConfig
from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import real_model

SEQUENCES = 64
STORES = {"memory": (), "process": ("process",), "disk": ("disk",)}
TARGET_US, TARGET_SECONDS = 12, 2.0


def _flags(folder: Path, durability: str) -> tuple[str, ...]:
    return ("--sequence-store", f"file:{folder}", "--sequence-durability", durability)


def _request(steps: int) -> bytes:
    x = np.random.default_rng(0).normal(size=(1, steps, 8)).astype(np.float32)
    made = pb.ModelInferRequest(model_name=reference.NAME, raw_input_contents=[x.tobytes()])
    made.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return made.SerializeToString()


def costs(folder: Path, rounds: int, seconds: float) -> None:
    """Prints the server's CPU a step, for each kind of step and store."""
    reference.export(folder / "models", ("onnx",))
    config = "sequence_batching { }\n"
    (folder / "models" / reference.NAME / "config.pbtxt").write_text(config)
    with contextlib.ExitStack() as open_:
        servers = {}
        for name, durability in STORES.items():
            flags = _flags(folder / name, *durability) if durability else ()
            server = LaunchedServer(folder / "models", "--backend", "onnx_runtime", *flags)
            servers[name] = open_.enter_context(server)
        for numbered in (0, 1):
            spent: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, server in servers.items():
                    before = cpu_seconds(server.process.pid)
                    with sequences_client.ran(
                        server.address,
                        _request(1),
                        folder,
                        seconds=seconds,
                        sequences=SEQUENCES,
                        streams=8,
                        numbered=numbered,
                    ) as told:
                        used = cpu_seconds(server.process.pid) - before
                    if told["refused"]:
                        raise SystemExit(f"steps were refused: {told['refusals']}")
                    spent[name].append(used / told["answered"] * 1e6)
            _tell("numbered" if numbered else "without numbers", spent)


def _tell(what: str, spent: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(each) for name, each in spent.items()}
    added = {
        name: statistics.median([one - other for one, other in zip(each, spent["memory"], strict=True)])
        for name, each in spent.items()
        if name != "memory"
    }
    told = ", ".join(f"{name} {median:.0f} us" for name, median in medians.items())
    more = ", ".join(f"{name} +{median:.1f} us" for name, median in added.items())
    verdict = "holds" if added["process"] <= TARGET_US else "missed"
    print(f"{what}: {told}; added {more} (process: at most {TARGET_US} us wanted: {verdict})", flush=True)


def restart(folder: Path, count: int) -> None:
    """Prints how soon sequences go on that were live when their server was killed."""
    network = LSTMConfig(input="features", features=8, layers=2, hidden=64, outputs=1, head="values_per_step")
    real_model.write(folder / "models", ["onnx_runtime"], name="m", config=network)
    (folder / "models" / "m" / "config.pbtxt").write_text(
        f'sequence_batching {{ }}\nparameters {{ key: "max_sequences" value {{ string_value: "{2 * count}" }} }}\n'
    )
    flags = ("--backend", "onnx_runtime", *_flags(folder / "store", "process"))
    with _ready(folder, *flags) as (server, empty):
        share = count // STREAMS
        ranges = [range(1 + share * part, 1 + share * (part + 1)) for part in range(STREAMS)]
        threads = [threading.Thread(target=begin_all, args=(server.address, ids)) for ids in ranges]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os.kill(server.process.pid, signal.SIGKILL)
    size = sum(path.stat().st_size for path in (folder / "store").iterdir()) / 2**20
    begun = time.perf_counter()
    with _ready(folder, *flags) as (server, full):
        while _live(server) < share * STREAMS:
            if time.perf_counter() - begun > 120:
                raise SystemExit(f"{_live(server):.0f} of {share * STREAMS} sequences live after 120 s")
            time.sleep(0.01)
        took = time.perf_counter() - begun
    verdict = "holds" if took - full <= TARGET_SECONDS else "missed"
    print(
        f"{share * STREAMS} sequences ({size:.0f} MiB): ready after {full:.2f} s, with an empty store {empty:.2f} s; all of them "
        f"live {took - full:.2f} s after that (at most {TARGET_SECONDS} s wanted: {verdict})"
    )


@contextlib.contextmanager
def _ready(folder: Path, *flags: str) -> Iterator[tuple[LaunchedServer, float]]:
    """A server, and the seconds until it was ready."""
    begun = time.perf_counter()
    with LaunchedServer(folder / "models", *flags) as server:
        yield server, time.perf_counter() - begun


def _live(server: LaunchedServer) -> float:
    lines = server.metrics().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("lstm_serving_sequences_live{"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a round")
    parser.add_argument("--restart", type=int, metavar="SEQUENCES", help="how soon so many go on, instead")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.restart:
            restart(Path(folder), asked.restart)
        else:
            costs(Path(folder), asked.rounds, asked.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
