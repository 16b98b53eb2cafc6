"""The one thread that owns a model instance: it takes batches out of the queue, computes them and answers.

Nobody else touches its backend. While it computes, the runtime lets go of the interpreter, so the next requests are
decoded meanwhile. A backend that fails is not believed to be at fault, nor is the request: the guard asks it what it is
known to answer, and only then hands the requests over to whoever can compute them. The worker prepares the model too,
since runtimes keep what they learn of it with the thread that runs it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence

from serving.batching.computation import Computation, Failed
from serving.batching.costs import Costs
from serving.batching.guard import Guard
from serving.batching.pending import Pending, Piece, finish_all, whole
from serving.batching.queue import Queue
from serving.batching.rows import padding_ratio
from serving.batching.watch import Watch, Watched
from serving.clock import SYSTEM, Clock
from serving.errors import ComputeFailed, ServingError
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics

log = logging.getLogger(__name__)


class Worker:
    """A worker of `queue`, on whose thread `prepare` is called before anything else.

    The constructor returns when that is done, and raises what it has raised, the computation closed. The worker ends, and
    closes the computation, when the queue is drained. `costs` is told what each batch has taken, its answers included.
    """

    def __init__(
        self,
        name: str,
        queue: Queue,
        computation: Computation,
        metrics: ModelMetrics,
        *,
        guard: Guard | None = None,
        prepare: Callable[[], None] = lambda: None,
        watch: Watch | None = None,
        costs: Costs | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._name = name
        self._queue = queue
        self._computation = computation
        self._metrics = metrics
        self._guard = guard or Guard(failures=1)
        self._watch = watch
        self._costs = costs or Costs()
        self._clock = clock
        # The thread's own, from here on.
        self._failures = 0  # runs in a row that have failed
        self._told = False  # whether the log holds where the batch that is being computed has failed
        self._broken: tuple[str, Exception] | None = None
        self._mended = 0  # how often the queue had been mended when it broke
        self.computing = 0  # requests in the batch that is being computed; others read it
        prepared = _Prepared(clock)
        self._thread = clock.start(lambda: self._live(prepare, prepared), f"worker {name}")
        prepared.wait()

    @property
    def alive(self) -> bool:
        """Whether the worker can still answer."""
        return self._thread.is_alive()

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Waits for the end of the worker of a drained queue; False when it is not through within the time given."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _live(self, prepare: Callable[[], None], prepared: _Prepared) -> None:
        try:
            prepare()
        except BaseException as error:  # noqa: BLE001 - told to whoever waits in the constructor
            try:
                self._computation.close()
            finally:
                prepared.tell(error)
            return
        self._queue.join()
        prepared.tell(None)
        try:
            while self._work():
                pass
        except Exception:
            log.exception("the worker of %s has ended; it cannot answer any more", self._name)
        finally:
            self._queue.leave(broken=self._broken is not None)
            self._computation.close()
            self._guard = Guard(failures=1)  # it leads back to the model, which would keep itself alive

    def _work(self) -> bool:
        """One batch, or what a broken backend leaves to others; False when there is nothing to come."""
        if self._broken:
            found = self._queue.take_all(self._mended)
            if found is None:
                return False
            requests, mended = found
            if mended != self._mended:
                self._failures, self._broken, self._mended = 0, None, mended  # as the queue has noted
            elif requests:
                self._hand_over(requests)
            return True
        pieces = self._queue.take()
        if pieces and isinstance(watched := pieces[0].pending, Watched):
            if self._watch:
                self._watch.compare(watched, functools.partial(self._run_alone, watched))
        elif pieces:
            self.computing = len(pieces)
            try:
                self._compute(pieces)
            finally:
                self.computing = 0
        return bool(pieces)

    def _compute(self, pieces: Sequence[Piece]) -> None:
        """Answers a batch, whatever the backend does: one request may be to blame, and then the others are answered."""
        self._told = False
        left, error = self._attempt(pieces)
        if error is None or self._lost(left, error):
            return
        for place, piece in enumerate(left):
            if self._broken:
                self._hand_over([each.pending for each in left[place:]])
                return
            self._alone(piece, error if len(pieces) == 1 else None)

    def _alone(self, piece: Piece, error: Exception | None) -> None:
        """Computes one request until it is answered, or it is known that it cannot be, or that the backend cannot."""
        while error is None or self._failures < self._guard.failures:
            if why := piece.pending.hopeless(self._clock.now_ns()):
                piece.pending.requester.finish(why)
                return
            left, error = self._attempt([piece])
            if error is None or self._lost(left, error):
                return
        if self._guard.hand_over and not self._guard.healthy():
            self._breaks("exceptions", error, [piece])
            return
        self._failures = 0
        failed = ComputeFailed(f"{self._name} failed to compute: {type(error).__name__}: {error}")
        piece.pending.requester.finish(failed)

    def _lost(self, left: Sequence[Piece], error: Exception) -> bool:
        """Whether the backend cannot go on after such an error; what is left is handed over then."""
        reason = self._guard.lost(error) if self._guard.hand_over else ""
        if reason:
            self._breaks(reason, error, left)
        return bool(reason)

    def _breaks(self, reason: str, error: Exception, left: Sequence[Piece]) -> None:
        self._broken = (reason, error)
        self._mended = self._queue.breaks()
        self._hand_over([piece.pending for piece in left])

    def _hand_over(self, requests: list[Pending]) -> None:
        assert self._broken
        assert self._guard.hand_over
        self._queue.give_up(requests)
        self._guard.hand_over(requests, *self._broken)

    def _attempt(self, pieces: Sequence[Piece]) -> tuple[list[Piece], Exception | None]:
        """One run: what is ready is answered; what has failed comes back with its error, and nothing has happened to it."""
        rows, began_ns = sum(piece.rows for piece in pieces), self._clock.now_ns()
        ready: list[tuple[Pending, Tensors]] = []
        left: list[Piece] = []
        error: Exception | None = None
        for piece, outcome in zip(pieces, self._computation.run(pieces), strict=True):
            if isinstance(outcome, Failed):
                left.append(piece)
                error = error or outcome.error
            else:
                ready.append((piece.pending, outcome.outputs))
        if error is None:
            self._failures = 0
        else:
            self._failures += 1
            if self._guard.told:
                self._tell(rows, error)
        if ready:
            self._answer(ready, rows, padding_ratio(pieces))
        if error is None:
            self._costs.learn(rows, max(piece.steps for piece in pieces), self._clock.now_ns() - began_ns)
        return left, error

    def _tell(self, rows: int, error: Exception) -> None:
        """Logs where a batch has failed, once: what its requests are then tried again for is a line for each try."""
        if self._told:
            log.error("%s failed again, on %d of these rows: %s: %s", self._name, rows, type(error).__name__, error)
        else:
            log.error("%s failed on a batch of %d rows", self._name, rows, exc_info=error)
        self._told = True

    def _answer(self, ready: Sequence[tuple[Pending, Tensors]], rows: int, padding: float) -> None:
        """Encodes, counts once for the batch, and only then sends."""
        answered = [pending for pending, outputs in ready if self._encoded(pending, outputs)]
        wall_ms = self._clock.wall_ms(ready[0][0].timeline.computed)
        self._metrics.answered(rows, [pending.timeline for pending in answered], wall_ms, padding)
        finish_all([pending.requester for pending in answered])
        if self._watch:
            self._watch.look(ready, rows)

    def _run_alone(self, watched: Watched, inputs: Tensors) -> Tensors:
        """What is answered to a row that nobody waits for. Raises what the backend raises."""
        watched.inputs = inputs
        (outcome,) = self._computation.run([whole(watched)])
        if isinstance(outcome, Failed):
            raise outcome.error
        return outcome.outputs

    def _encoded(self, pending: Pending, outputs: Tensors) -> bool:
        """Makes one request's answer ready; what goes wrong with it is that request's alone."""
        try:
            pending.requester.encode(outputs)
        except ServingError as error:
            pending.requester.finish(error)
        except Exception as error:
            log.exception("%s gave what cannot be sent", self._name)
            failed = ComputeFailed(f"{self._name} gave what cannot be sent: {type(error).__name__}: {error}")
            pending.requester.finish(failed)
        else:
            return True
        return False


class _Prepared:
    """Tells the constructor of a worker how its preparation has ended."""

    def __init__(self, clock: Clock) -> None:
        self._changed = clock.condition()
        self._over = False
        self._error: BaseException | None = None

    def tell(self, error: BaseException | None) -> None:
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._over)
        if self._error is not None:
            raise self._error
