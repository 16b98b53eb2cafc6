"""One live version of a model: its queue, the workers before its backends, its counts, and the leases that keep it alive."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from protos import model_config_pb2 as pb
from serving import backends
from serving.backends.base import Candidate
from serving.batching.computation import Computation
from serving.batching.costs import Costs
from serving.batching.following import Follower
from serving.batching.guard import Guard
from serving.batching.pending import Pending
from serving.batching.plan import Take, Wait, plan
from serving.batching.policy import BatchPolicy
from serving.batching.queue import Queue
from serving.batching.watch import Differs, Watch
from serving.batching.worker import Worker
from serving.clock import SYSTEM, Clock
from serving.errors import Overloaded, ServingError
from serving.sequences.live import Sequences
from serving.sequences.policy import SequencePolicy, StateLayout
from serving.signature.spec import ModelSpec
from serving.telemetry.counters import ModelMetrics

log = logging.getLogger(__name__)


class Instance(NamedTuple):
    """What one worker is given: what it computes with, what it does first, and what is done when that fails."""

    computation: Computation
    prepare: Callable[[], None]
    guard: Guard


class Watched(NamedTuple):
    """Which share of the batches is looked at for rows that touch each other, and what says that they do.

    `found` is what was seen of these files before, and `told` is called with what is seen now, on a thread of its own.
    """

    share: float
    differs: Differs
    found: str = ""
    told: Callable[[Model, str], None] = lambda model, found: None


class Model:
    """A version that can answer.

    `config` is the configuration in force; `candidate` says what computes; `verified` whether its golden samples were
    replayed; `labels` names the classes of outputs; `max_rows` is the most that a request may hold; `text_only` whether
    strings must be UTF-8; `finite_only` whether numbers of true steps must be finite; `watched` is of a version whose rows were
    found apart by trying; `costs` is what its batches are known to take; `on_closed` is called at the end. A stateful one has
    the `sequence_policy` and the `state_layout` of its sequences. A leased model is never closed: `close` waits for the last
    lease to be released.
    """

    def __init__(
        self,
        *,
        name: str,
        version: str,
        spec: ModelSpec,
        config: pb.ModelConfig,
        labels: Mapping[str, Sequence[str]],
        candidate: Candidate,
        verified: bool,
        metrics: ModelMetrics,
        policy: BatchPolicy,
        finite_only: bool = False,
        watched: Watched | None = None,
        costs: Costs | None = None,
        on_closed: Callable[[Model], None] = lambda model: None,
        clock: Clock = SYSTEM,
        sequence_policy: SequencePolicy | None = None,
        state_layout: StateLayout | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.spec = spec
        self.config = config
        self.labels = labels
        self.candidate = candidate
        self.backend = candidate.backend
        self.device = candidate.device
        self.max_rows = policy.max_rows
        self.text_only = backends.module(candidate.backend).TEXT_ONLY
        self.finite_only = finite_only
        self.verified = verified
        self.metrics = metrics
        self.costs = costs or Costs()
        self.sequences: Sequences | None = None  # those of its version, where it keeps any; given when it is installed
        self.sequence_policy = sequence_policy
        self.state_layout = state_layout
        self._on_closed = on_closed
        self.queue = Queue(self.title, policy, clock, self._plan)
        self.watch = self._watch(watched) if watched else None
        # What the protocol has worked out for this version, kept here for as long as it lives.
        self.plans: Any = None
        self.answers: Any = None
        self._clock = clock
        self._workers: list[Worker] = []
        self._leases = 0
        self._unleased = clock.condition()

    def _plan(self, waiting: Sequence[Pending], policy: BatchPolicy, now: int) -> Take | Wait:
        return plan(waiting, policy, now, self.costs.now)

    def _watch(self, watched: Watched) -> Watch:
        def stop(found: str) -> None:
            self.queue.part()
            self._clock.start(lambda: watched.told(self, found), "rows that touch")
            log.error("%s", found, extra={"fields": {"model": self.name, "version": self.version}})

        if watched.found:
            self.queue.part()
        return Watch(
            self.title,
            watched.share,
            watched.differs,
            self.metrics,
            wait=self.queue.offer_behind,
            stop=stop,
            found=watched.found,
        )

    @property
    def touching(self) -> str:
        """What the watch has found of its rows; "" while they are believed to be apart."""
        return self.watch.found if self.watch else ""

    @property
    def title(self) -> str:
        """How sentences call it."""
        return f"model '{self.name}' version {self.version}"

    def start(self, instances: Sequence[Instance]) -> None:
        """Starts a worker for each, which prepares itself first. Raises what that raises; all are closed then."""
        left = list(instances)
        try:
            while left:
                one = left.pop(0)
                worker = Worker(
                    self.title, self.queue, one.computation, self.metrics,
                    guard=one.guard, prepare=one.prepare, watch=self.watch, costs=self.costs, clock=self._clock,
                )  # fmt: skip
                self._workers.append(worker)
        except BaseException:
            self.queue.drain()
            for worker in self._workers:
                worker.join()
            for each in left:
                each.computation.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether its workers can still answer."""
        return all(worker.alive for worker in self._workers)

    @property
    def depth(self) -> int:
        """Requests that wait for a batch."""
        return self.queue.depth

    @property
    def load(self) -> int:
        """Requests that wait or are being computed."""
        return self.queue.depth + sum(worker.computing for worker in self._workers)

    @property
    def instances(self) -> int:
        """How many workers it has."""
        return len(self._workers)

    def submit(self, pending: Pending, *, handed_over: bool = False) -> None:
        """Queues a request; raises what `Queue.offer` raises."""
        self.queue.offer(pending, handed_over=handed_over)

    def submit_all(self, requests: Sequence[Pending]) -> list[tuple[Pending, ServingError]]:
        """Queues requests that have come together; gives back those that `Queue.offer` refuses, and why."""
        return self.queue.offer_all(requests)

    def full(self, ahead: int, size: int) -> Overloaded | None:
        """See `Queue.full`."""
        return self.queue.full(ahead, size)

    def mend(self) -> None:
        """Nothing can take over: the backend is tried again with what comes."""
        self.queue.mend()

    def hurry(self) -> None:
        """No request waits for company any more."""
        self.queue.hurry()

    def lease(self, follower: Follower | None = None) -> Lease:
        """Keeps this version alive until the lease is released."""
        (lease,) = self.leases(1, follower)
        return lease

    def leases(self, count: int, follower: Follower | None = None) -> list[Lease]:
        """So many leases at once."""
        with self._unleased:
            self._leases += count
        return [Lease(self, follower) for _ in range(count)]

    def release(self, leases: int = 1) -> None:
        """Gives so many leases back; called by `Lease` alone."""
        with self._unleased:
            self._leases -= leases
            if not self._leases:
                self._unleased.notify_all()

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Answers what is queued, waits for the last lease, and frees the backends. Nothing may lease it any more.

        False when that took longer than the time given; the backends are then left to the end of the process.
        """
        until = None if timeout_seconds is None else self._clock.now_ns() + int(timeout_seconds * 1e9)
        self.queue.hurry()
        with self._unleased:
            if not self._unleased.wait_for(lambda: not self._leases, timeout_seconds):
                return False
        self.queue.drain()
        ended = [
            worker.join(None if until is None else self._clock.seconds_until(until))
            for worker in self._workers  # each, whatever the others do
        ]
        if all(ended):
            self._on_closed(self)
        return all(ended)


class Lease:
    """The right to use a model; released exactly once, on whichever thread completes the request. A context manager, too.

    `follower` gets a copy of the request, if there is one.
    """

    __slots__ = ("follower", "model")

    def __init__(self, model: Model, follower: Follower | None = None) -> None:
        self.model = model
        self.follower = follower

    def release(self) -> None:
        """The request is done with the model."""
        self.model.release()

    @staticmethod
    def release_all(leases: Sequence[Lease]) -> None:
        """As many requests are done, most of them with the same model."""
        for model, count in Counter([lease.model for lease in leases]).items():
            model.release(count)

    def __enter__(self) -> Model:
        return self.model

    def __exit__(self, *_: object) -> None:
        self.release()
