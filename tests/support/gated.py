"""A backend that computes only when the test lets it, and requests that tell what came of them: for the worker's loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

import numpy as np

from protos import model_config_pb2 as pb
from serving.backends.base import Candidate
from serving.batching.computation import Stateless
from serving.batching.guard import Guard
from serving.batching.model import Instance, Model, Watched
from serving.batching.pending import Pending
from serving.batching.plan import plan
from serving.batching.policy import BatchPolicy
from serving.batching.queue import Decide, Queue
from serving.batching.worker import Worker
from serving.clock import SYSTEM, Clock
from serving.errors import ServingError
from serving.signature.spec import ModelSpec
from serving.signature.tensors import BatchKey, Tensors, TensorSpec
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import Timeline, now_ns
from tests.support.threads import asked_from_elsewhere

# `x` [rows, steps] in, `y` and `z` of the same shape out.
SPEC = ModelSpec(
    inputs=(TensorSpec("x", "FP32", (-1, -1), steps_axis=1),),
    outputs=tuple(TensorSpec(name, "FP32", (-1, -1), steps_axis=1) for name in ("y", "z")),
    lengths=None,
    state=(),
    streamable=False,
    tolerance=1e-5,
    weights_sha256="",
)


class GatedBackend:
    """Doubles `x`, and adds `adds` to it.

    Tells when a batch has begun, and lets it go on when `permits` has something; an error there is raised.
    """

    def __init__(self) -> None:
        self.adds = 0.0
        self.begun: queue.SimpleQueue[tuple[int, tuple[str, ...]]] = queue.SimpleQueue()
        self.permits: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self.closed = threading.Event()

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.begun.put((len(inputs["x"]), tuple(outputs)))
        if error := self.permits.get(timeout=10):
            raise error
        return dict.fromkeys(outputs, inputs["x"] * 2 + self.adds)

    def close(self) -> None:
        self.closed.set()


class Answer:
    """One request, and what came of it; a `Requester`. With `fails` its answer cannot be encoded."""

    def __init__(
        self,
        value: float,
        rows: int = 1,
        steps: int = 2,
        deadline_ns: int | None = None,
        output: str = "y",
        fails: Exception | None = None,
        decoded_ns: int | None = None,
        key: BatchKey | None = None,
    ) -> None:
        timeline = Timeline(now_ns())
        timeline.decoded = now_ns() if decoded_ns is None else decoded_ns
        self.outputs: Tensors = {}
        self.moved_to: list[object] = []
        self._fails = fails
        self._ended: queue.SimpleQueue[ServingError | None] = queue.SimpleQueue()
        x = np.full((rows, steps), value, np.float32)
        key = (b"", x.shape[1:]) if key is None else key
        self.pending = Pending(self, {"x": x}, rows, steps, [output], key, timeline, deadline_ns)

    def encode(self, outputs: Tensors) -> None:
        if self._fails:
            raise self._fails
        self.outputs = outputs
        self.pending.timeline.encoded = now_ns()

    def finish(self, error: ServingError) -> None:
        self._ended.put(error)

    @staticmethod
    def finish_all(requesters: Sequence[Answer]) -> None:
        for answer in requesters:
            answer._ended.put(None)

    def move(self, lease: object) -> None:
        self.moved_to.append(lease)

    def wait(self) -> ServingError | None:
        return self._ended.get(timeout=10)

    def wait_for_deadline(self) -> None:
        """Returns when the request's deadline has passed."""
        left_ns = (self.pending.deadline_ns or 0) - now_ns()
        threading.Event().wait(max(0, left_ns) / 1e9 + 0.001)


class Asking(Answer):
    """When it ends, it asks `question` from another thread first, which gets no answer while a lock is held that it needs."""

    def __init__(self, question: Callable[[], object], decoded_ns: int | None = None) -> None:
        super().__init__(0, decoded_ns=decoded_ns)
        self._question = question

    def finish(self, error: ServingError) -> None:
        asked_from_elsewhere(self._question)
        super().finish(error)


class Line:
    """A queue and the workers before it, one for each backend; the calls of `serving.batching.model.Model`."""

    def __init__(
        self,
        *backends: GatedBackend,
        policy: BatchPolicy | None = None,
        guard: Guard | None = None,
        decide: Decide = plan,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        name = "model 'm' version 1"
        self.metrics = ModelMetrics()
        self.queue = Queue(name, policy or BatchPolicy(), decide=decide)
        self.workers = [
            Worker(name, self.queue, Stateless(backend, SPEC), self.metrics, guard=guard, prepare=prepare)
            for backend in backends
        ]
        self.submit, self.hurry, self.mend = self.queue.offer, self.queue.hurry, self.queue.mend

    @property
    def depth(self) -> int:
        return self.queue.depth

    @property
    def load(self) -> int:
        return self.queue.depth + sum(worker.computing for worker in self.workers)

    @property
    def alive(self) -> bool:
        return all(worker.alive for worker in self.workers)

    def drain(self, timeout_seconds: float | None = None) -> bool:
        self.queue.drain()
        ended = [worker.join(timeout_seconds) for worker in self.workers]
        return all(ended)


def start(
    policy: BatchPolicy | None = None, guard: Guard | None = None, decide: Decide = plan
) -> tuple[Line, GatedBackend, ModelMetrics]:
    """One worker before such a backend, and its counts."""
    backend = GatedBackend()
    line = Line(backend, policy=policy, guard=guard, decide=decide)
    return line, backend, line.metrics


def model(policy: BatchPolicy | None = None, clock: Clock = SYSTEM, watched: Watched | None = None) -> Model:
    """A version of such backends that has not been started."""
    return Model(
        name="m",
        version="1",
        spec=SPEC,
        config=pb.ModelConfig(),
        labels={},
        candidate=Candidate("fake", "cpu", 1),
        verified=True,
        metrics=ModelMetrics(),
        policy=policy or BatchPolicy(),
        watched=watched,
        clock=clock,
    )


def instance(backend: GatedBackend, prepare: Callable[[], None] = lambda: None) -> Instance:
    """What one worker of a model is given."""
    return Instance(Stateless(backend, SPEC), prepare, Guard())


def started(
    *backends: GatedBackend,
    policy: BatchPolicy | None = None,
    clock: Clock = SYSTEM,
    watched: Watched | None = None,
) -> Model:
    """A version that can answer, with a worker for each backend."""
    made = model(policy, clock, watched)
    made.start([instance(backend) for backend in backends])
    return made
