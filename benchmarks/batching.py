"""What batching unequal lengths brings: the queue, the plan and a worker in virtual time, with costs that were measured here.

    python benchmarks/batching.py [--backend onnx_runtime] [--threads 1] [--clients 32] [--plot docs/pictures/batching.svg]

For each network the backend is measured at a grid of rows and steps. Then clients in a closed loop ask a queue, whose backend
takes as long as was measured (between the places of the grid, what lies between); the clock is a simulated one, so nothing but
the decisions differs. The server's plan learns its costs as it does in service. It is held against batches of equal lengths
only, against padding whatever waits to the longest, and against requests that are all as long as the mean.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import itertools
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import reference
from models import problems
from models.config import LSTMConfig
from serving import backends
from serving.backends.base import Backend, Options
from serving.batching.computation import Outcome, Ready
from serving.batching.costs import Costs
from serving.batching.pending import Pending, Piece, whole
from serving.batching.plan import Take, Wait, plan
from serving.batching.policy import BatchPolicy
from serving.batching.queue import Decide, Queue
from serving.batching.rows import padding_ratio
from serving.batching.worker import Worker
from serving.clock import Clock
from serving.errors import ServingError
from serving.repository.folders import VersionFolder
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import Timeline
from tests.simulation.virtual import VirtualClock

NETWORKS = {"2 x 64": reference.CONFIG, "2 x 512": dataclasses.replace(reference.CONFIG, hidden=512)}
ROWS = (1, 2, 4, 8, 16, 32, 64)
STEPS = (4, 8, 16, 24, 32, 64, 128, 256, 2000)
LONG = 256  # from here on cells are worked out from this one where a call would take longer than that
DEAR_SECONDS = 1.0
CELL_SECONDS, LEAST_CALLS = 0.1, 3
REQUESTS = 4000
KEY = (b"", (-1,))

WRITTEN = {"onnx_runtime": "onnx", "torchscript": "torchscript", "saved_model": "savedmodel"}
Draw = Callable[[random.Random], int]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Seconds of a call, at `ROWS` times `STEPS`."""

    seconds: Mapping[tuple[int, int], float]

    def of(self, rows: int, steps: int) -> float:
        """Between four places of the grid; straight on beyond the last."""
        (r, s), (u, v) = zip(_between(ROWS, rows), _between(STEPS, steps), strict=True)
        low, high = (
            self.seconds[ROWS[r], STEPS[s + k]] * (1 - u) + self.seconds[ROWS[r + 1], STEPS[s + k]] * u for k in (0, 1)
        )
        return max(1e-6, low * (1 - v) + high * v)


def _between(places: Sequence[int], value: int) -> tuple[int, float]:
    at = min(max(bisect.bisect_right(places, value) - 1, 0), len(places) - 2)
    return at, (value - places[at]) / (places[at + 1] - places[at])


def measured(config: LSTMConfig, backend: str, threads: int) -> Grid:
    """The median seconds of calls of this network, written and loaded as for a server."""
    with tempfile.TemporaryDirectory() as folder:
        reference.export(Path(folder), (WRITTEN[backend],), config)
        version = VersionFolder(1, Path(folder) / reference.NAME / "1")
        spec = version.spec()
        loaded = backends.module(backend).load(version.artifact(backend), spec, "cpu", Options(threads=threads))
        try:
            return Grid(_cells(loaded, spec))
        finally:
            loaded.close()


def _cells(loaded: Backend, spec: ModelSpec) -> Mapping[tuple[int, int], float]:
    cells: dict[tuple[int, int], float] = {}
    for rows, steps in itertools.product(ROWS, STEPS):
        shorter = [cells[rows, each] for each in STEPS if each < steps]
        if steps > LONG and shorter[-1] * steps / LONG > DEAR_SECONDS:
            cells[rows, steps] = shorter[-1] * steps / LONG
            continue
        inputs = _inputs(spec, rows, steps)
        loaded.run(inputs, ["y"])
        taken: list[float] = []
        until = time.perf_counter() + CELL_SECONDS
        while len(taken) < LEAST_CALLS or time.perf_counter() < until:
            began = time.perf_counter()
            loaded.run(inputs, ["y"])
            taken.append(time.perf_counter() - began)
        cells[rows, steps] = statistics.median(taken)
    return cells


def _inputs(spec: ModelSpec, rows: int, steps: int) -> Tensors:
    generator = np.random.default_rng(0)
    shape = {"x": (rows, steps, 8), "lengths": (rows,)}
    values = {
        t.name: generator.normal(size=shape.get(t.name, (rows, *t.shape[1:]))).astype(t.dtype) for t in spec.inputs
    }
    return {**values, "lengths": np.full(rows, steps, np.int64)}


class Computing:
    """Takes as long as was measured; see `serving.batching.computation.Computation`."""

    def __init__(self, grid: Grid, clock: VirtualClock) -> None:
        self._grid = grid
        self._clock = clock
        self.calls = 0
        self.computed = 0  # rows times steps
        self.padding = 0.0  # of them

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]:
        rows, steps = sum(piece.rows for piece in pieces), max(piece.steps for piece in pieces)
        started = self._clock.now_ns()
        self._clock.sleep(self._grid.of(rows, steps))
        for piece in pieces:
            piece.pending.timeline.started, piece.pending.timeline.computed = started, self._clock.now_ns()
        self.calls += 1
        self.computed += rows * steps
        self.padding += padding_ratio(pieces) * rows * steps
        return [Ready({})] * len(pieces)

    def close(self) -> None: ...


class Clients:
    """So many in a closed loop, each request of a length that is drawn; a `Requester` for all of them."""

    def __init__(self, queue: Queue, clock: Clock, draw: Draw, requests: int) -> None:
        self._queue = queue
        self._clock = clock
        self._draw = draw
        self._random = random.Random(1)
        self._left = requests
        self._over = clock.event()
        self.delays_ns: list[int] = []

    def ask(self, count: int) -> None:
        """So many requests more."""
        now = self._clock.now_ns()
        asked = []
        for _ in range(count):
            timeline = Timeline(now)
            timeline.decoded = now
            asked.append(Pending(Client(self, timeline), {}, 1, self._draw(self._random), ["y"], KEY, timeline))
        self._queue.offer_all(asked)

    def answered(self, timelines: Sequence[Timeline]) -> None:
        """That many clients have their answers, and ask again."""
        self.delays_ns += [timeline.computed - timeline.decoded for timeline in timelines]
        self._left -= len(timelines)
        if self._left > 0:
            self.ask(len(timelines))
        else:
            self._over.set()

    def wait(self) -> None:
        self._over.wait()


class Client:
    """One request; see `serving.batching.pending.Requester`."""

    def __init__(self, all_of_them: Clients, timeline: Timeline) -> None:
        self._all = all_of_them
        self._timeline = timeline

    def encode(self, outputs: Tensors) -> None:
        self._timeline.encoded = self._timeline.computed

    def finish(self, error: ServingError) -> None:
        raise error

    @staticmethod
    def finish_all(requesters: Sequence[Client]) -> None:
        requesters[0]._all.answered([each._timeline for each in requesters])

    def move(self, lease: object) -> None: ...


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one load: requests a second, the share of padding, requests in a batch, and the delays in milliseconds."""

    rate: float
    padding: float
    batch: float
    p50_ms: float
    p99_ms: float


def run(grid: Grid, draw: Draw, decide: Callable[[Costs], Decide], clients: int) -> Run:
    """A closed loop in virtual time."""
    clock, costs = VirtualClock(0), Costs()
    done: list[Run] = []

    def main() -> None:
        queue = Queue("m", BatchPolicy(), clock, decide(costs))
        computing = Computing(grid, clock)
        worker = Worker("m", queue, computing, ModelMetrics(), costs=costs, clock=clock)
        asking = Clients(queue, clock, draw, REQUESTS)
        asking.ask(clients)
        asking.wait()
        taken = clock.now_ns() / 1e9
        queue.drain()
        worker.join()
        delays = sorted(asking.delays_ns)
        done.append(
            Run(
                rate=len(delays) / taken if taken else math.inf,
                padding=computing.padding / computing.computed,
                batch=len(delays) / computing.calls,
                p50_ms=delays[len(delays) // 2] / 1e6,
                p99_ms=delays[len(delays) * 99 // 100] / 1e6,
            )
        )

    clock.run(main)
    return done[0]


def as_served(costs: Costs) -> Decide:
    """The server's own plan."""
    return lambda waiting, policy, now: plan(waiting, policy, now, costs.now)


def equal_only(_: Costs) -> Decide:
    """Those as long as the first in line."""

    def decide(waiting: Sequence[Pending], policy: BatchPolicy, now: int) -> Take | Wait:
        alike = [each for each in waiting if each.steps == waiting[0].steps][: policy.max_rows]
        return Take([whole(each) for each in alike]) if alike else Wait(None)

    return decide


def to_the_longest(_: Costs) -> Decide:
    """Whatever waits."""

    def decide(waiting: Sequence[Pending], policy: BatchPolicy, now: int) -> Take | Wait:
        return Take([whole(each) for each in waiting[: policy.max_rows]]) if waiting else Wait(None)

    return decide


def loads() -> Mapping[str, tuple[Draw, float]]:
    """How lengths are drawn, and their mean."""
    vowels = [len(sequence) for sequence in problems.vowels().test.sequences]
    return {
        "Vowels, 7 to 29": (lambda draw: draw.choice(vowels), statistics.mean(vowels)),
        "1 to 256": (lambda draw: draw.randint(1, 256), 128.5),
        "95 % of 20, 5 % of 2,000": (lambda draw: 20 if draw.random() < 0.95 else 2000, 119.0),
    }


WAYS: Mapping[str, Callable[[Costs], Decide]] = {
    "the server's plan": as_served,
    "equal lengths only": equal_only,
    "padded to the longest": to_the_longest,
}


@dataclasses.dataclass(frozen=True)
class Compared:
    """A network and a load: what came of each way, and of requests that are all of the mean length."""

    network: str
    load: str
    ways: Mapping[str, Run]
    mean: Run


def compared(grids: Mapping[str, Grid], clients: int) -> list[Compared]:
    """Every network with every load."""
    return [
        Compared(
            network,
            load,
            {way: run(grid, draw, decide, clients) for way, decide in WAYS.items()},
            run(grid, lambda _, mean=mean: round(mean), as_served, clients),
        )
        for network, grid in grids.items()
        for load, (draw, mean) in loads().items()
    ]


def table(found: Sequence[Compared]) -> str:
    """As Markdown."""
    lines = [
        "| network | lengths | batched | requests/s | by the mean length's | by equal lengths only's | padding | "
        "requests a batch | p50 | p99 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        equal = one.ways["equal lengths only"].rate
        for way, each in {**one.ways, "all of the mean length": one.mean}.items():
            lines.append(
                f"| {one.network} | {one.load} | {way} | {each.rate:,.0f} | {each.rate / one.mean.rate:.2f} | "
                f"{each.rate / equal:.2f} | {each.padding:.0%} | {each.batch:.1f} | {each.p50_ms:.1f} ms | {each.p99_ms:.1f} ms |"
            )
    return "\n".join(lines)


def plot(found: Sequence[Compared], path: Path) -> None:
    """Throughput, padding and delay of each way, side by side."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text, which is a tenth of its outlines
    networks = list(dict.fromkeys(one.network for one in found))
    figure = Figure(figsize=(11, 3.2 * len(networks)), layout="constrained")
    axes = figure.subplots(len(networks), 3, squeeze=False)
    for line, network in zip(axes, networks, strict=True):
        shown = [one for one in found if one.network == network]
        measures: Sequence[tuple[str, Callable[[Compared, Run], float]]] = (
            ("requests/s, by that of equal lengths only", lambda one, r: r.rate / one.ways["equal lengths only"].rate),
            ("share of padding", lambda one, r: r.padding),
            ("p99 of the delay, ms", lambda one, r: r.p99_ms),
        )
        for place, (title, of) in zip(line, measures, strict=True):
            for shift, way in enumerate(WAYS):
                places = [number + 0.27 * (shift - 1) for number in range(len(shown))]
                place.bar(places, [of(one, one.ways[way]) for one in shown], 0.25, label=way)
            place.set_xticks(range(len(shown)), [one.load.replace(", ", "\n", 1) for one in shown], fontsize=8)
            place.set_title(f"{network}: {title}", fontsize=9)
            place.spines[["top", "right"]].set_visible(False)
        line[2].set_yscale("log")
    axes[0][0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--backend", choices=list(WRITTEN), default="onnx_runtime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clients", type=int, default=32, help="requests in flight")
    parser.add_argument("--plot", type=Path, help="an .svg or .png to draw")
    options = parser.parse_args()
    grids = {name: measured(config, options.backend, options.threads) for name, config in NETWORKS.items()}
    for name, grid in grids.items():
        print(f"{name}, microseconds of a call: {options.backend}, {options.threads} threads\n")
        print(
            "| rows | " + " | ".join(f"{steps:,} steps" for steps in STEPS) + " |\n|---" * 1 + "|---" * len(STEPS) + "|"
        )
        for rows in ROWS:
            print(f"| {rows} | " + " | ".join(f"{grid.seconds[rows, steps] * 1e6:,.0f}" for steps in STEPS) + " |")
        print()
    found = compared(grids, options.clients)
    print(table(found))
    if options.plot:
        plot(found, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
