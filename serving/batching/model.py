"""One live version of a model: its backend behind its batchers, its counts, and the leases that keep it alive."""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from protos import model_config_pb2 as pb
from serving import backends
from serving.backends.base import Backend
from serving.batching.plan import BatchPolicy, Pending
from serving.batching.worker import Batcher, Guard
from serving.loading.order import Order
from serving.loading.ranking import Candidate
from serving.signature.spec import ModelSpec
from serving.telemetry.counters import ModelMetrics

if TYPE_CHECKING:
    from serving.lifecycle.shadow import Shadow


class Model:
    """A version that can answer.

    `config` is the configuration in force; `candidate` says what computes, `order` what else could; `verified` whether its
    golden samples were replayed; `labels` names the classes of `spec.labels_of`; `text_only` whether strings must be
    UTF-8. Each instance has a worker of its own. `fell_back` says why it is not the first choice that serves, and is empty
    if it is; `damaged` names the other backends whose files were tried and found wrong, and why. A leased model is never
    closed: `close` waits for the last lease to be released.

    `on_broken(model, requests, reason, error)` is called from a worker thread for requests that its backend cannot compute.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        spec: ModelSpec,
        config: pb.ModelConfig,
        labels: Sequence[str],
        candidate: Candidate,
        order: Order,
        verified: bool,
        metrics: ModelMetrics,
        wanted: Any,
    ) -> None:
        self.name = name
        self.version = version
        self.spec = spec
        self.config = config
        self.labels = labels
        self.candidate = candidate
        self.order = order
        self.backend = candidate.backend
        self.device = candidate.device
        self.text_only = backends.module(candidate.backend).TEXT_ONLY
        self.verified = verified
        self.metrics = metrics
        self.wanted = wanted
        self.fell_back = ""
        self.damaged: Mapping[str, str] = {}
        self.shadow: Shadow | None = None
        self.on_broken: Callable[[Model, list[Pending], str, Exception], None] | None = None
        self._instances: list[Batcher] = []
        self._leases = 0
        self._unleased = threading.Condition()

    def start(
        self,
        loaded: Sequence[Backend],
        policy: BatchPolicy,
        prepare: Callable[[Backend], None],
        guard: Callable[[Backend], Guard],
    ) -> None:
        """Starts a worker for each backend, which prepares it first. Raises what `prepare` raises; all are closed then."""
        share = dataclasses.replace(policy, max_queue=-(-policy.max_queue // len(loaded)))
        name = f"model '{self.name}' version {self.version}"
        left = list(loaded)
        try:
            while left:
                backend = left.pop(0)
                ready = functools.partial(prepare, backend)
                self._instances.append(Batcher(name, backend, share, self.metrics, guard=guard(backend), prepare=ready))
        except BaseException:
            for batcher in self._instances:
                batcher.drain()
            for backend in left:
                backend.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether its workers can still answer."""
        return all(batcher.alive for batcher in self._instances)

    @property
    def depth(self) -> int:
        """Requests that wait for a batch."""
        return sum(batcher.depth for batcher in self._instances)

    @property
    def load(self) -> int:
        """Requests that wait or are being computed."""
        return sum(batcher.load for batcher in self._instances)

    @property
    def instances(self) -> int:
        """How many workers it has."""
        return len(self._instances)

    def cancel(self, pending: Pending) -> None:
        """The client of a request that was submitted has gone."""
        for batcher in self._instances:
            batcher.cancel(pending)

    def submit(self, pending: Pending, *, handed_over: bool = False) -> None:
        """Queues a request at the instance with the least to do; raises what `Batcher.submit` raises."""
        instances = self._instances
        batcher = instances[0]
        if len(instances) > 1:
            batcher = min(instances, key=lambda each: (not each.alive, each.load))
        batcher.submit(pending, handed_over=handed_over)

    def hand_over(self, requests: list[Pending], reason: str, error: Exception) -> None:
        """What the workers call when the backend is broken."""
        assert self.on_broken
        self.on_broken(self, requests, reason, error)

    def mend(self) -> None:
        """Nothing can take over: the backend is tried again with what comes."""
        for batcher in self._instances:
            batcher.mend()

    def hurry(self) -> None:
        """No request waits for company any more."""
        for batcher in self._instances:
            batcher.hurry()

    def lease(self) -> Lease:
        """Keeps this version alive until the lease is released."""
        with self._unleased:
            self._leases += 1
        return Lease(self)

    def release(self) -> None:
        """Gives one lease back; called by `Lease` alone."""
        with self._unleased:
            self._leases -= 1
            if not self._leases:
                self._unleased.notify_all()

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Answers what is queued, waits for the last lease, and frees the backend. Nothing may lease it any more.

        False when that took longer than the time given; the backend is then left to the end of the process.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self.hurry()
        with self._unleased:
            if not self._unleased.wait_for(lambda: not self._leases, timeout_seconds):
                return False
        drained = [
            batcher.drain(None if until is None else max(0.0, until - time.monotonic())) for batcher in self._instances
        ]
        return all(drained)


class Lease:
    """The right to use a model; released exactly once, on whichever thread completes the request."""

    __slots__ = ("model",)

    def __init__(self, model: Model) -> None:
        self.model = model

    def release(self) -> None:
        """The request is done with the model."""
        self.model.release()
