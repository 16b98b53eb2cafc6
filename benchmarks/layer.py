"""What the server costs between the edge and the backend: a closed loop through everything but these two.

    python benchmarks/layer.py

The edge hands over the bytes of a request and takes the bytes of the answer, in one thread; the backend gives zeros. What a
loop costs that answers at once, and what the backend takes, is subtracted. CPU time of the whole process in microseconds a
request, medians of rounds in which all loads take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import queue
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from protos import grpc_service_pb2 as pb
from serving.backends import fake
from serving.batching.model import Model
from serving.batching.pending import Pending
from serving.errors import ServingError
from serving.lifecycle.manager import ModelManager
from serving.loading.order import ServerDefaults
from serving.protocol.call import reply_all
from serving.protocol.codes import REFUSALS, Code
from serving.protocol.inference import Inference
from serving.repository import model_config
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.ended import Recorder
from serving.telemetry.timeline import Timeline, now_ns
from tests.support import fake_models
from tests.support.loading import request_of
from tests.support.managed import let_in

STEPS, LONGEST = 24, 256
FEATURES = fake_models.FEATURES
WAYS = 500  # different requests of a load
Asked = Sequence[tuple[bytes, "Call"]]
USUAL = f"{STEPS} steps, 64 in flight"


class Edge:
    """Keeps so many requests in flight; hands up at once as many as were answered at once."""

    def __init__(self, infer_all: Callable[[Asked], None]) -> None:
        self._infer_all = infer_all
        self._answers: Answers = queue.SimpleQueue()

    def run(self, payloads: Sequence[bytes], in_flight: int, requests: int) -> None:
        """Sends so many requests, and takes their answers. Raises `AssertionError` at the first error."""
        sent, ways, left, burst = 0, len(payloads), requests, in_flight
        while left:
            burst = min(burst, requests - sent)
            self._infer_all([(payloads[number % ways], Call(self._answers)) for number in range(sent, sent + burst)])
            sent += burst
            burst = self._answers.get()
            assert isinstance(burst, int), burst
            left -= burst


Answers = queue.SimpleQueue[int | tuple[Code, str]]  # how many have come at once, or an error


class Call:
    """See `serving.protocol.call.Call`."""

    def __init__(self, answers: Answers) -> None:
        self.received_ns = now_ns()
        self.deadline_ns: int | None = None
        self._answers = answers

    def reply(self, payload: bytes) -> None:
        self._answers.put(1)

    @staticmethod
    def reply_all(answers: Sequence[tuple[Call, bytes]]) -> None:
        answers[0][0]._answers.put(len(answers))

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        self._answers.put((code, message))

    def on_cancel(self, action: Callable[[], None]) -> None: ...


class Zeros:
    """A backend that gives zeros, and counts the CPU time that it takes."""

    seconds = 0.0

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        began = time.thread_time()
        shapes = {"y": (2,), "hn": (1, 4), "cn": (1, 4)}
        given = {name: np.zeros((len(inputs["x"]), *shapes[name]), np.float32) for name in outputs}
        Zeros.seconds += time.thread_time() - began
        return given

    def close(self) -> None: ...


def payload(steps: int, number: int, models: int = 1) -> bytes:
    """One row of so many steps, for one of the models in turn."""
    x = np.full((1, steps, FEATURES), 0.5, np.float32)
    name = f"fake{number % models}"
    asked = pb.ModelInferRequest(model_name=name, id=str(number), raw_input_contents=[x.tobytes()])
    asked.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return asked.SerializeToString()


def loads() -> Iterator[tuple[str, int, list[bytes]]]:
    """A name, how many are in flight, and what they ask."""
    drawn = random.Random(0)
    fixed = [payload(STEPS, number) for number in range(WAYS)]
    yield USUAL, 64, fixed
    for in_flight in (1, 8):
        yield f"{STEPS} steps, {in_flight} in flight", in_flight, fixed
    lengths = [drawn.randint(1, LONGEST) for _ in range(WAYS)]
    middle = sum(lengths) // WAYS
    yield f"{middle} steps, 64 in flight", 64, [payload(middle, number) for number in range(WAYS)]
    yield f"1 to {LONGEST} steps, 64 in flight", 64, [payload(steps, n) for n, steps in enumerate(lengths)]


class Engine:
    """Queue, plan and worker alone: requests that are decoded already, whose answers nobody encodes."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._inputs = {"x": np.full((1, STEPS, FEATURES), 0.5, np.float32)}
        self._key = (b"", *[tensor.shape[1:] for tensor in model.spec.inputs])

    def infer_all(self, asked: Asked) -> None:
        """See `serving.protocol.inference.Inference.infer_all`."""
        requests = []
        for _, call in asked:
            timeline = Timeline(call.received_ns)
            timeline.decoded = now_ns()
            self._model.metrics.entered()
            requests.append(Pending(_Waits(call, timeline), self._inputs, 1, STEPS, ("y",), self._key, timeline))
        assert not self._model.submit_all(requests)


class _Waits:
    """See `serving.batching.pending.Requester`."""

    __slots__ = ("_call", "_timeline")

    def __init__(self, call: Call, timeline: Timeline) -> None:
        self._call = call
        self._timeline = timeline

    def encode(self, outputs: Tensors) -> None:
        self._timeline.encoded = now_ns()

    def finish(self, error: ServingError) -> None:
        raise error

    @staticmethod
    def finish_all(requesters: Sequence[_Waits]) -> None:
        reply_all([(each._call, b"") for each in requesters])

    def move(self, lease: object) -> None: ...


def metrics_share(whole: float) -> float:
    """What stamps and counts of a request take in a batch of 64, as a share of its whole cost in microseconds."""
    metrics, rounds = ModelMetrics(), 500
    began = time.process_time()
    for _ in range(rounds):
        timelines = []
        for _ in range(64):
            metrics.entered()
            timeline = Timeline(now_ns())
            timeline.decoded = timeline.started = timeline.computed = timeline.encoded = now_ns()
            timelines.append(timeline)
        metrics.answered(64, timelines, 0)
    return (time.process_time() - began) / rounds / 64 * 1e6 / whole


def edge_alone() -> Edge:
    """An edge that is answered at once."""
    return Edge(lambda asked: reply_all([(call, payload) for payload, call in asked]))


def edge_of(manager: ModelManager) -> Edge:
    """An edge before these models."""
    return Edge(Inference(manager, Recorder(0.0, REFUSALS), max_steps=8192).infer_all)


def microseconds(edge: Edge, payloads: Sequence[bytes], in_flight: int, requests: int) -> float:
    """CPU time of one request, less that of the backend."""
    Zeros.seconds = 0.0
    began = time.process_time()
    edge.run(payloads, in_flight, requests)
    return (time.process_time() - began - Zeros.seconds) / requests * 1e6


def load(manager: ModelManager, repository: Path, number: int, max_rows: int = 64) -> None:
    """Loads one of many models that are all alike, with room for everything that is in flight."""
    name = f"fake{number}"
    fake_models.write(repository, name)
    room = f"max_batch_size: {max_rows} dynamic_batching {{ default_queue_policy {{ max_queue_size: 20000 }} }}"
    asked = dataclasses.replace(
        request_of(repository, name), config=model_config.parse(room, name), defaults=ServerDefaults(backend="fake")
    )
    let_in(manager, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=8000, help="for each load and round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manager = ModelManager()
        load(manager, Path(folder), 0)
        fake.FakeBackend.run = Zeros.run  # type: ignore[assignment]
        at_once, whole = edge_alone(), edge_of(manager)
        with manager.acquire("fake0") as model:
            engine = Edge(Engine(model).infer_all)
        taken: dict[str, list[float]] = {}
        for turn in range(options.rounds + 1):  # the first warms up
            for name, in_flight, payloads in loads():
                nothing = microseconds(at_once, payloads, in_flight, options.requests)
                cost = microseconds(whole, payloads, in_flight, options.requests) - nothing
                if turn:
                    taken.setdefault(name, []).append(cost)
            for in_flight in (1, 64):
                nothing = microseconds(at_once, [b""], in_flight, options.requests)
                cost = microseconds(engine, [b""], in_flight, options.requests) - nothing
                if turn:
                    taken.setdefault(f"queue, plan and worker alone, {in_flight} in flight", []).append(cost)
        manager.close(10)
    for name, costs in taken.items():
        print(f"{name:42} {statistics.median(costs):6.1f} us  [{min(costs):.1f}, {max(costs):.1f}]")
    share = metrics_share(statistics.median(taken[USUAL]))
    print(f"stamps and counts: {share:.1%} of {USUAL}")


if __name__ == "__main__":
    sys.exit(main())
