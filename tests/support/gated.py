"""A backend that computes only when the test lets it, and requests that tell what came of them: for the worker's loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import numpy as np

from serving.batching.plan import BatchPolicy, Pending
from serving.batching.worker import Batcher, Guard
from serving.errors import ServingError
from serving.signature.spec import Tensors
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import Timeline, now_ns


class GatedBackend:
    """Doubles `x`. Tells when a batch has begun and lets it go on when `permits` has something; an error there is raised."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[tuple[int, tuple[str, ...]]] = queue.SimpleQueue()
        self.permits: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self.closed = threading.Event()

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.begun.put((len(inputs["x"]), tuple(outputs)))
        if error := self.permits.get(timeout=10):
            raise error
        return dict.fromkeys(outputs, inputs["x"] * 2)

    def close(self) -> None:
        self.closed.set()


class Answer:
    """What came of one request."""

    def __init__(
        self, value: float, rows: int = 1, steps: int = 2, deadline_ns: int | None = None, output: str = "y"
    ) -> None:
        timeline = Timeline(now_ns())
        timeline.decoded = now_ns()
        self.outputs: Tensors = {}
        self._ended: queue.SimpleQueue[ServingError | None] = queue.SimpleQueue()
        x = np.full((rows, steps), value, np.float32)
        self.pending = Pending({"x": x}, rows, [output], timeline, self._encode, self._ended.put, deadline_ns)

    def _encode(self, outputs: Tensors) -> None:
        self.outputs = outputs
        self.pending.timeline.encoded = now_ns()

    def wait(self) -> ServingError | None:
        return self._ended.get(timeout=10)


def start(policy: BatchPolicy | None = None, guard: Guard | None = None) -> tuple[Batcher, GatedBackend, ModelMetrics]:
    """A worker before such a backend, and its counts."""
    backend, metrics = GatedBackend(), ModelMetrics()
    return Batcher("model 'm' version 1", backend, policy or BatchPolicy(), metrics, guard=guard), backend, metrics
