"""Is a request as cheap when there is more of everything? CPU time of one request, as curves.

    python benchmarks/curves.py
    python benchmarks/curves.py --edges grpcio --rounds 5

Over waiting requests and loaded models everything between the edge and the backend is measured in this process, as
`benchmarks/layer.py` does it. Over connections it is a server as a process, with a closed loop of 64 in flight in another
process, spread over so many connections; each of `--edges` is handed to it as its `--edge`. Microseconds, medians of rounds
in which all points of a curve take turns, and the ratio to the first point.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import layer
from benchmarks.connections_client import Client
from benchmarks.peers.cpu import cpu_seconds
from serving.backends import fake
from serving.launch import LaunchedServer
from serving.lifecycle.manager import ModelManager
from tests.support import fake_models

IN_FLIGHT = 64
WAITING = (1, 10, 100, 1_000, 10_000)  # beside a batch that is computed
MODELS = (1, 10, 50)
CONNECTIONS = (1, 10, 100, 1_000)

Point = tuple[str, int, float]  # of which curve, how much there was of it, and the microseconds of a request


def waiting(rounds: int, requests: int) -> Iterator[Point]:
    """More and more requests wait: in batches, in batches of their own length, and each computed alone."""
    drawn = random.Random(0)
    alike = [layer.payload(layer.STEPS, number) for number in range(layer.WAYS)]
    unlike = [layer.payload(drawn.randint(1, layer.LONGEST), number) for number in range(layer.WAYS)]
    curves = (
        ("requests that wait", 64, alike),
        (f"the same, of 1 to {layer.LONGEST} steps at random", 64, unlike),
        ("the same, max_batch_size: 1", 1, alike),
    )
    for title, max_rows, payloads in curves:
        with tempfile.TemporaryDirectory() as folder:
            manager = ModelManager()
            layer.load(manager, Path(folder), 0, max_rows)
            for _ in range(rounds):
                for many in WAITING:
                    yield title, many, cost(manager, payloads, max_rows + many, requests)
            manager.close(10)


def models(rounds: int, requests: int) -> Iterator[Point]:
    """More and more models are loaded: one of them asked, and all in turn."""
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            manager, loaded = ModelManager(), 0
            for many in MODELS:
                while loaded < many:
                    layer.load(manager, Path(folder), loaded)
                    loaded += 1
                for title, asked in (("loaded models, one of them asked", 1), ("loaded models, asked in turn", many)):
                    payloads = [layer.payload(layer.STEPS, number, asked) for number in range(layer.WAYS)]
                    yield title, many, cost(manager, payloads, IN_FLIGHT, requests)
            manager.close(10)


def cost(manager: ModelManager, payloads: Sequence[bytes], in_flight: int, requests: int) -> float:
    """Microseconds of a request between edge and backend."""
    requests += 3 * in_flight  # so that the beginning and the end, when fewer wait, are the smaller part
    nothing = layer.microseconds(layer.edge_alone(), payloads, in_flight, requests)
    return layer.microseconds(layer.edge_of(manager), payloads, in_flight, requests) - nothing


def connections(edge: str, rounds: int, requests: int) -> Iterator[Point]:
    """More and more connections, of a server's whole cost."""
    title = f"connections, the whole server on {f'--edge {edge}' if edge else 'its default edge'}"
    with tempfile.TemporaryDirectory() as folder:
        fake_models.write(Path(folder), "fake0")
        flags = ("--edge", edge) if edge else ()
        with LaunchedServer(Path(folder), "--backend", "fake", *flags) as server:
            for _ in range(rounds):
                for many in CONNECTIONS:
                    with Client(server.address, many, IN_FLIGHT) as client:
                        client.run(requests // 4)
                        before = cpu_seconds(server.process.pid)
                        client.run(requests)
                        yield title, many, (cpu_seconds(server.process.pid) - before) / requests * 1e6


def shown(points: Iterable[Point]) -> str:
    """Each curve as a table."""
    curves: dict[str, dict[int, list[float]]] = {}
    for title, many, microseconds in points:
        curves.setdefault(title, {}).setdefault(many, []).append(microseconds)
    lines = []
    for title, taken in curves.items():
        lines.append(f"{title:>44}     us    ratio")
        first = statistics.median(next(iter(taken.values())))
        for many, costs in taken.items():
            middle = statistics.median(costs)
            lines.append(f"{many:44,} {middle:6.1f} {middle / first:8.2f}   [{min(costs):.1f}, {max(costs):.1f}]")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=4000, help="for each point and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--edges", default="", help="of the server, as in nghttp2,grpcio; default: its own default")
    options = parser.parse_args()
    for edge in options.edges.split(","):
        print(shown(connections(edge, options.rounds, options.requests)), flush=True)
    fake.FakeBackend.run = layer.Zeros.run  # type: ignore[assignment]
    for curve in (waiting, models):
        print(shown(curve(options.rounds, options.requests)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
