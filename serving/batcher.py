"""From single requests to batches: the queue, the decision, and the one thread that owns a model instance.

The worker thread takes from the queue, runs the backend and completes requests; nobody else touches the backend. While
it computes, the runtime lets go of the interpreter, so the next requests are decoded meanwhile and a batch forms by
itself: a delay of 0 is the right default. One fact that surprises: requests of another shape do not end a batch, they
are passed over and stay first in line for the next one.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from serving.backends.base import Backend
from serving.errors import Cancelled, ComputeFailed, DeadlineExceeded, NotReady, Overloaded, ServingError
from serving.metrics import ModelMetrics
from serving.spec import Tensors
from serving.timeline import Timeline, now_ns

log = logging.getLogger(__name__)

BatchKey = tuple[bytes | tuple[int, ...], ...]

END_OF_TIME = 2**63  # later than any stamp of the clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """What may share a batch, and how long to wait for company.

    `max_rows` bounds a batch; `max_delay_ns` is how long the first in line waits for it to fill; with `preferred_rows`
    a batch of exactly such a size goes at once and others wait the delay out. `max_queue` bounds the waiting requests.
    Without `dynamic` every request is computed alone.
    """

    max_rows: int = 64
    max_delay_ns: int = 0
    preferred_rows: tuple[int, ...] = ()
    max_queue: int = 1024
    dynamic: bool = True


class Pending:
    """A request that waits for its answer.

    `inputs` holds every input of the spec, axis 0 being `rows` in each; `outputs` names what is wanted, in the order
    wanted; `deadline_ns` is on the clock of `timeline.now_ns`; requests of another `kind` never share a batch. The worker
    thread calls `encode(outputs)` to make the answer ready and then, exactly once, `finish(None)` to send it or
    `finish(error)`; `finish` never raises. Between the two it counts, so that no client sees an answer before the
    statistics do.
    """

    __slots__ = ("batch_key", "cancelled", "deadline_ns", "encode", "finish", "inputs", "outputs", "rows", "timeline")

    def __init__(
        self,
        inputs: Tensors,
        rows: int,
        outputs: Sequence[str],
        timeline: Timeline,
        encode: Callable[[Tensors], None],
        finish: Callable[[ServingError | None], None],
        deadline_ns: int | None = None,
        kind: bytes = b"",
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        self.timeline = timeline
        self.encode = encode
        self.finish = finish
        self.deadline_ns = deadline_ns
        self.cancelled = False
        self.batch_key: BatchKey = (kind, *(array.shape[1:] for array in inputs.values()))


@dataclasses.dataclass(frozen=True)
class Take:
    """Compute these, given by their places in the queue (rising)."""

    places: list[int]


@dataclasses.dataclass(frozen=True)
class Wait:
    """Nothing to do until this time (ns), or until a request arrives if it is None."""

    until_ns: int | None


def plan(waiting: Sequence[Pending], policy: BatchPolicy, now: int) -> Take | Wait:
    """What to do with the queue now. Pure: looks at rows, shapes and arrival, touches nothing.

    The first in line is always part of the batch, so nobody starves. Those of its shape join in order of arrival as
    long as the rows fit.
    """
    if not waiting:
        return Wait(None)
    first = waiting[0]
    if not policy.dynamic:
        return Take([0])
    places: list[int] = []
    rows, preferred, full = 0, 0, False
    for place, pending in enumerate(waiting):
        if pending.batch_key != first.batch_key:
            continue
        if rows + pending.rows > policy.max_rows and places:
            full = True
            break
        places.append(place)
        rows += pending.rows
        if rows in policy.preferred_rows:
            preferred = len(places)
        if rows >= policy.max_rows:
            full = True
            break
    if preferred:
        return Take(places[:preferred])
    until = first.timeline.decoded + policy.max_delay_ns
    if full or now >= until:
        return Take(places)
    return Wait(until)


class Batcher:
    """The queue of one model instance and its worker thread.

    Raises at the door (`submit`): `Overloaded` when the queue is full, `DeadlineExceeded` when the time is up already,
    `NotReady` after `drain` has begun. What fails later arrives through `Pending.finish`.
    """

    def __init__(self, name: str, backend: Backend, policy: BatchPolicy, metrics: ModelMetrics) -> None:
        self.policy = policy
        self._name = name
        self._backend = backend
        self._metrics = metrics
        self._incoming: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()  # None: look again
        self._waiting: list[Pending] = []  # the worker's own
        self._lock = threading.Lock()  # guards the two below
        self._queued = 0
        self._draining = False
        self._hurrying = False
        self._thread = threading.Thread(target=self._work, name=f"worker {name}", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Requests that wait for a batch."""
        return self._queued

    def submit(self, pending: Pending) -> None:
        """Queues a request. Called from any thread."""
        if pending.deadline_ns is not None and pending.timeline.decoded >= pending.deadline_ns:
            raise DeadlineExceeded("Deadline Exceeded: the client's deadline had passed when the request was decoded")
        with self._lock:
            if self._draining:
                raise NotReady(f"{self._name} is not at ready state: it is being unloaded, or its worker has ended")
            if self._queued >= self.policy.max_queue:
                raise Overloaded(
                    f"Exceeds maximum queue size: {self._queued} requests wait for {self._name}, which allows "
                    f"{self.policy.max_queue}; try again later, or raise max_queue_size in config.pbtxt"
                )
            self._queued += 1
            self._incoming.put(pending)  # under the lock: nothing may follow the end of taking requests

    def cancel(self, pending: Pending) -> None:
        """The client of a queued request has gone. Called from any thread; harmless when it is computed already."""
        pending.cancelled = True
        if not pending.timeline.started:
            self._incoming.put(None)

    def hurry(self) -> None:
        """From now on nobody waits for company; what comes is still taken."""
        self._hurrying = True
        self._incoming.put(None)

    def drain(self, timeout_seconds: float | None = None) -> bool:
        """Refuses new requests, answers those that are queued, stops the worker and closes the backend.

        False when the worker is not through within the time given.
        """
        with self._lock:
            self._draining = True
        self.hurry()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the worker can still answer."""
        return self._thread.is_alive()

    def _work(self) -> None:
        try:
            until: int | None = None
            while True:
                self._receive(until)
                if self._draining and not self._queued:
                    break
                self._drop_the_hopeless()
                decision = plan(self._waiting, self.policy, END_OF_TIME if self._hurrying else now_ns())
                if isinstance(decision, Take):
                    self._compute(self._remove(decision.places))
                    until = 0
                else:
                    deadlines = [p.deadline_ns for p in self._waiting if p.deadline_ns is not None]
                    until = min([*deadlines, decision.until_ns]) if decision.until_ns is not None else None
        except Exception:
            log.exception("the worker of %s has ended; it cannot answer any more", self._name)
            self._give_up()
        finally:
            self._backend.close()

    def _give_up(self) -> None:
        """Nobody is left waiting for a worker that has ended."""
        with self._lock:
            self._draining = True
        self._receive(0)
        for pending in self._remove(range(len(self._waiting))):
            pending.finish(ComputeFailed(f"the worker of {self._name} has ended; the server's log says why"))

    def _receive(self, until: int | None) -> None:
        """Moves what has arrived into the queue, waiting for something to arrive until the time given (None: for ever)."""
        timeout = None if until is None else max(0.0, (until - now_ns()) / 1e9)
        try:
            while True:
                arrived = self._incoming.get(timeout != 0.0, timeout or None)
                if arrived is not None:
                    self._waiting.append(arrived)
                timeout = 0.0
        except queue.Empty:
            return

    def _remove(self, places: Sequence[int]) -> list[Pending]:
        if not places:
            return []
        chosen = [self._waiting[place] for place in places]
        if places[-1] == len(places) - 1:
            del self._waiting[: len(places)]
        else:
            taken = set(places)
            self._waiting = [pending for place, pending in enumerate(self._waiting) if place not in taken]
        with self._lock:
            self._queued -= len(chosen)
        return chosen

    def _drop_the_hopeless(self) -> None:
        """Completes, without computing, those whose client has gone or whose deadline has passed."""
        now = now_ns()
        places = [
            place
            for place, pending in enumerate(self._waiting)
            if pending.cancelled or (pending.deadline_ns is not None and now >= pending.deadline_ns)
        ]
        if not places:
            return
        for pending in self._remove(places):
            if pending.cancelled:
                pending.finish(Cancelled("the client has cancelled the request"))
            else:
                waited_ms = (now - pending.timeline.decoded) / 1e6
                pending.finish(
                    DeadlineExceeded(f"Deadline Exceeded: waited {waited_ms:.1f} ms in the queue; nothing was computed")
                )

    def _compute(self, batch: Sequence[Pending]) -> None:
        rows = sum(pending.rows for pending in batch)
        wanted = batch[0].outputs if len(batch) == 1 else tuple({name: 0 for p in batch for name in p.outputs})
        try:
            inputs = _gather(batch)
            started = now_ns()
            results = self._backend.run(inputs, wanted)
            computed = now_ns()
        except Exception as error:
            log.exception("%s failed on a batch of %d rows", self._name, rows)
            if len(batch) > 1:  # one of them may be to blame; the others are answered
                for pending in batch:
                    self._compute([pending])
                return
            batch[0].finish(ComputeFailed(f"{self._name} failed to compute: {type(error).__name__}: {error}"))
            return
        row = 0
        answered: list[Pending] = []
        for pending in batch:
            span = slice(row, row + pending.rows)
            row += pending.rows
            pending.timeline.started, pending.timeline.computed = started, computed
            if self._encoded(pending, results, span):
                answered.append(pending)
        self._metrics.answered(rows, [pending.timeline for pending in answered], int(time.time() * 1000))
        for pending in answered:
            pending.finish(None)

    def _encoded(self, pending: Pending, results: Tensors, span: slice) -> bool:
        """Makes one request's answer ready; what goes wrong with it is that request's alone."""
        try:
            pending.encode({name: results[name][span] for name in pending.outputs})
        except ServingError as error:
            pending.finish(error)
        except Exception as error:
            log.exception("%s gave what cannot be sent", self._name)
            pending.finish(ComputeFailed(f"{self._name} gave what cannot be sent: {type(error).__name__}: {error}"))
        else:
            return True
        return False


def _gather(batch: Sequence[Pending]) -> Tensors:
    """The rows of all requests, one after the other; a request alone is passed on without a copy."""
    first = batch[0].inputs
    if len(batch) == 1:
        return first
    gathered: dict[str, np.ndarray[Any, Any]] = {}
    for name in first:
        gathered[name] = np.concatenate([pending.inputs[name] for pending in batch])
    return gathered
