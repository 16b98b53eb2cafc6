"""From single requests to batches: the queue, the decision, and the one thread that owns a model instance.

The worker thread takes from the queue, runs the backend and completes requests; nobody else touches the backend. While
it computes, the runtime lets go of the interpreter, so the next requests are decoded meanwhile and a batch forms by
itself: a delay of 0 is the right default. A backend that fails is not believed to be at fault, nor is the request: the
guard asks it what it is known to answer, and only then hands the requests over to whoever can compute them. The worker
prepares the model too, since runtimes keep what they learn of it with the thread that runs it.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from serving.backends.base import Backend
from serving.batching.plan import BatchPolicy, Pending, Take, plan
from serving.errors import ComputeFailed, DeadlineExceeded, NotReady, Overloaded, ServingError
from serving.signature.spec import Tensors
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import now_ns

log = logging.getLogger(__name__)

END_OF_TIME = 2**63  # later than any stamp of the clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guard:
    """What to do about a backend that raises.

    A request is computed again until `failures` runs in a row have failed. Then `healthy()` replays on the backend what
    it is known to answer: if it does, the request is to blame. If not, or as soon as `lost(error)` gives a reason
    ("out_of_memory", "device_lost"), the backend is broken, and `hand_over(requests, reason, error)` gets all that waits
    and all that still comes, and nothing when the client of a request that it has got goes. All are called from the worker
    thread; none of them raises, and `hand_over` does not block.
    """

    failures: int = 3
    healthy: Callable[[], bool] = lambda: True
    lost: Callable[[Exception], str] = lambda error: ""
    hand_over: Callable[[list[Pending], str, Exception], None] | None = None
    told: bool = True  # whether failures are logged


class Batcher:
    """The queue of one model instance and its worker thread, on which `prepare` is called before anything else.

    The constructor returns when that is done, and raises what it has raised, the backend closed. Raises at the door
    (`submit`): `Overloaded` when the queue is full, `DeadlineExceeded` when the time is up already, `NotReady` after `drain`
    has begun. What fails later arrives through `Pending.finish`.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        policy: BatchPolicy,
        metrics: ModelMetrics,
        *,
        guard: Guard | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.policy = policy
        self.guard = guard or Guard(failures=1)
        self._name = name
        self._backend = backend
        self._metrics = metrics
        self._incoming: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()  # None: look again
        self._waiting: list[Pending] = []  # the worker's own
        self._lock = threading.Lock()  # guards the two below
        self._queued = 0
        self._draining = False
        self._hurrying = False
        self._computing = 0  # requests in the batch that is being computed
        self._failures = 0  # runs in a row that have failed
        self._broken: tuple[str, Exception] | None = None
        prepared: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(prepare, prepared), name=f"worker {name}", daemon=True)
        self._thread.start()
        prepared.result()

    @property
    def depth(self) -> int:
        """Requests that wait for a batch."""
        return self._queued

    @property
    def load(self) -> int:
        """Requests that wait or are being computed."""
        return self._queued + self._computing

    def submit(self, pending: Pending, *, handed_over: bool = False) -> None:
        """Queues a request. Called from any thread. One that was `handed_over` had its place and is not turned away."""
        if pending.deadline_ns is not None and pending.timeline.decoded >= pending.deadline_ns:
            raise DeadlineExceeded("Deadline Exceeded: the client's deadline had passed when the request was decoded")
        with self._lock:
            if self._draining:
                raise NotReady(f"{self._name} is not at ready state: it is being unloaded, or its worker has ended")
            if self._queued >= self.policy.max_queue and not handed_over:
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

    def mend(self) -> None:
        """Tries the backend again, as there is nothing else. Called from any thread."""
        self._failures, self._broken = 0, None

    def _work(self, prepare: Callable[[], None], prepared: Future[None]) -> None:
        try:
            prepare()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits in the constructor
            try:
                self._backend.close()
            finally:
                prepared.set_exception(error)
            return
        prepared.set_result(None)
        try:
            until: int | None = None
            while True:
                self._receive(0 if self._draining else until)  # nothing comes any more that would end a wait
                if self._draining and not self._queued:
                    break
                self._drop_the_hopeless()
                if self._broken:
                    self._hand_over(self._remove(range(len(self._waiting))))
                    until = None
                    continue
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
            self.guard = Guard(failures=1)  # it leads back to the model, which would keep itself alive

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
        ends = {place: why for place, pending in enumerate(self._waiting) if (why := pending.hopeless(now))}
        for pending, why in zip(self._remove(list(ends)), ends.values(), strict=True):
            pending.finish(why)

    def _compute(self, batch: Sequence[Pending]) -> None:
        """Answers a batch, whatever the backend does: one request may be to blame, and then the others are answered."""
        self._computing = len(batch)
        try:
            error = self._attempt(batch)
            if error is None or self._gone(batch, error):
                return
            for place, pending in enumerate(batch):
                if self._broken:
                    self._hand_over(batch[place:])
                    return
                self._alone(pending, error if len(batch) == 1 else None)
        finally:
            self._computing = 0

    def _alone(self, pending: Pending, error: Exception | None) -> None:
        """Computes one request until it is answered, or it is known that it cannot be, or that the backend cannot."""
        while error is None or self._failures < self.guard.failures:
            error = self._attempt([pending])
            if error is None or self._gone([pending], error):
                return
        if self.guard.hand_over and not self.guard.healthy():
            self._broken = ("exceptions", error)
            self._hand_over([pending])
            return
        self._failures = 0
        pending.finish(ComputeFailed(f"{self._name} failed to compute: {type(error).__name__}: {error}"))

    def _gone(self, batch: Sequence[Pending], error: Exception) -> bool:
        """Whether the backend cannot go on after such an error; the requests are handed over then."""
        reason = self.guard.lost(error) if self.guard.hand_over else ""
        if reason:
            self._broken = (reason, error)
            self._hand_over(batch)
        return bool(reason)

    def _hand_over(self, requests: Sequence[Pending]) -> None:
        broken = self._broken
        if broken and self.guard.hand_over:
            self.guard.hand_over(list(requests), *broken)
            return
        with self._lock:  # it has been mended meanwhile
            self._queued += len(requests)
        self._waiting[:0] = requests

    def _attempt(self, batch: Sequence[Pending]) -> Exception | None:
        """One run of the backend: the requests are answered, or the error is returned and nothing has happened to them."""
        rows = sum(pending.rows for pending in batch)
        wanted = batch[0].outputs if len(batch) == 1 else tuple({name: 0 for p in batch for name in p.outputs})
        try:
            inputs = _gather(batch)
            started = now_ns()
            results = self._backend.run(inputs, wanted)
            computed = now_ns()
        except Exception as error:
            self._failures += 1
            if self.guard.told:
                log.exception("%s failed on a batch of %d rows", self._name, rows)
            return error
        self._failures = 0
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
        return None

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
