"""The same as benchmarks/batching.py over gRPC: a server, lstm-loadtest beside it, and how much of the CPU is not computing.

    python benchmarks/batching_over_grpc.py [--backend onnx_runtime] [--clients 32] [--seconds 5] [--rounds 3]

One server has each network twice: as it batches by itself, and with equal lengths only (max_padding_ratio 0). Rounds alternate;
the table has their medians. What is not computing is the server's CPU time less the time within the backend, of one thread.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import reference
from benchmarks.batching import NETWORKS, WRITTEN, loads
from benchmarks.peers.cpu import cpu_seconds
from benchmarks.peers.load_test import LoadTest
from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support.wire import RawClient

SEQUENCES = 500
SERVED, EQUAL = "the server's plan", "equal lengths only"
EQUAL_ONLY = 'parameters { key: "max_padding_ratio" value { string_value: "0" } }'


class Figures(NamedTuple):
    """Of one run: answers a second, microseconds a request of the server's CPU and within the backend, rows a batch, times."""

    rate: float
    cpu_us: float
    compute_us: float
    batch: float
    p50_ms: float
    p99_ms: float


def write(folder: Path, backend: str) -> Mapping[tuple[str, str], str]:
    """Each network twice; the model's name by network and how it batches."""
    names = {}
    for network, config in NETWORKS.items():
        for way in (SERVED, EQUAL):
            name = f"{'equal' if way == EQUAL else 'served'}_{config.hidden}"
            reference.export(folder, (WRITTEN[backend],), config, name)
            if way == EQUAL:
                (folder / name / "config.pbtxt").write_text(EQUAL_ONLY)
            names[network, way] = name
    return names


def write_lengths(path: Path, draw: Callable[[random.Random], int]) -> None:
    """Sequences for lstm-loadtest."""
    generator, random_ = np.random.default_rng(0), random.Random(0)
    drawn = [generator.normal(size=(draw(random_), reference.CONFIG.features)) for _ in range(SEQUENCES)]
    np.savez(path, **{str(number): each.astype(np.float32) for number, each in enumerate(drawn)})


def run(server: LaunchedServer, model: str, data: Path, clients: int, seconds: float) -> Figures:
    """One closed loop."""
    before, used = statistics_of(server, model), cpu_seconds(server.process.pid)
    flags = ("--url", server.address, "--model", model, "--concurrency", str(clients), "--data", str(data))
    measured = LoadTest(*flags, "--warm-up", "0", seconds=seconds).result()
    used, after = cpu_seconds(server.process.pid) - used, statistics_of(server, model)
    assert not measured["failed"], measured["error_messages"]
    computed_ns = sum(one.compute_infer.ns for one in after.batch_stats) - sum(
        one.compute_infer.ns for one in before.batch_stats
    )
    requests = after.inference_count - before.inference_count
    return Figures(
        rate=measured["throughput_per_second"],
        cpu_us=used / requests * 1e6,
        compute_us=computed_ns / requests / 1e3,
        batch=requests / (after.execution_count - before.execution_count),
        p50_ms=measured["latency_seconds"]["p50"] * 1e3,
        p99_ms=measured["latency_seconds"]["p99"] * 1e3,
    )


def statistics_of(server: LaunchedServer, model: str) -> pb.ModelStatistics:
    """What the server has counted of a model."""
    with RawClient(server.address) as client:
        (found,) = client.call("ModelStatistics", name=model).model_stats
    assert isinstance(found, pb.ModelStatistics)
    return found


def table(found: Mapping[tuple[str, str, str], Figures]) -> str:
    """As Markdown."""
    lines = [
        "| network | lengths | batched | requests/s | by equal lengths only's | CPU a request | of it not computing | "
        "requests a batch | p50 | p99 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, load, way), one in found.items():
        equal = found.get((network, load, EQUAL), one)
        lines.append(
            f"| {network} | {load} | {way} | {one.rate:,.0f} | {one.rate / equal.rate:.2f} | {one.cpu_us:,.0f} us | "
            f"{1 - one.compute_us / one.cpu_us:.0%} | {one.batch:.1f} | {one.p50_ms:.1f} ms | {one.p99_ms:.1f} ms |"
        )
    return "\n".join(lines)


def median(runs: Sequence[Figures]) -> Figures:
    """Of each figure."""
    return Figures(*[statistics.median(each) for each in zip(*runs, strict=True)])


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backend", choices=list(WRITTEN), default="onnx_runtime")
    parser.add_argument("--clients", type=int, default=32, help="requests in flight")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs: dict[tuple[str, str, str], list[Figures]] = {}
    with tempfile.TemporaryDirectory() as folder:
        names = write(Path(folder) / "models", options.backend)
        data = {}
        for number, (load, (draw, _)) in enumerate(loads().items()):
            data[load] = Path(folder) / f"{number}.npz"
            write_lengths(data[load], draw)
        flags = ("--backend", options.backend, "--threads", "1")
        with LaunchedServer(Path(folder) / "models", *flags) as server:
            for _ in range(options.rounds):
                for load, file in data.items():
                    for (network, way), name in names.items():
                        done = run(server, name, file, options.clients, options.seconds)
                        runs.setdefault((network, load, way), []).append(done)
    print(table({key: median(each) for key, each in runs.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
