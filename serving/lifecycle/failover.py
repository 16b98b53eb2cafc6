"""When a backend breaks under load: somebody else answers what it could not, and it is tried again later.

The requests of the broken backend wait here while the next candidate of the version's order is loaded, verified and warmed
up; then they go there, and nobody's request has failed. A backend that is tried again is loaded anew and must give its
golden samples' answers, since a context that has lost its device never works again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from serving.backends.base import Candidate
from serving.batching.model import Lease
from serving.batching.pending import Pending
from serving.clock import SYSTEM, Clock, Thread
from serving.errors import ComputeFailed, NotReady, ServingError, StartupError
from serving.loading.loader import load_in
from serving.loading.order import Order
from serving.loading.request import Loaded, LoadRequest
from serving.machine import background

log = logging.getLogger(__name__)

RECOVERED = "recovered"

StandIn = Callable[[Loaded, Loaded, str], bool]
LoadIn = Callable[[LoadRequest, Candidate, Order], Loaded]


class Failover:
    """Stands by one version from the moment at which its backend breaks until the first choice serves again.

    `stand_in(new, old, why)` makes a model answer instead of another, False if that one does not serve any more; `lease()`
    gives a lease on whatever serves the version. While something is loaded, `at_work()` is held. All are called from the
    thread that this object starts with its first requests, and `lease` from whoever calls `leave` too.
    """

    def __init__(
        self,
        loaded: Loaded,
        reset_seconds: float,
        stand_in: StandIn,
        lease: Callable[[], Lease],
        at_work: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        *,
        clock: Clock = SYSTEM,
        load_in: LoadIn = load_in,
    ) -> None:
        self._serving = loaded
        self._reset_ns = int(reset_seconds * 1e9)
        self._stand_in = stand_in
        self._lease = lease
        self._at_work = at_work
        self._clock = clock
        self._load_in = load_in
        self._changed = clock.condition()  # guards what follows
        self._broken: dict[Candidate, int] = {}  # since when, in nanoseconds of the clock; changed by the thread alone
        self._taken: list[Pending] = []
        self._why: tuple[str, Exception] | None = None
        self._ended = False
        self._thread: Thread | None = None

    def take(self, requests: Sequence[Pending], reason: str, error: Exception) -> bool:
        """Requests that the model which serves cannot compute; False if this object has ended. Never blocks for long.

        Raises `RuntimeError`, nothing taken, where the system has no thread left for it.
        """
        with self._changed:
            if self._ended:
                return False
            if self._thread is None:
                self._thread = self._clock.start(self._run, f"failover of {self._serving.model.name}")
            for pending in requests:
                pending.holder = self
            self._taken += requests
            self._why = self._why or (reason, error)
            self._changed.notify_all()
        self.look_again()
        return True

    def look_again(self) -> None:
        """Lets those go whose clients have gone: each holds a thread that answers other models too."""
        now = self._clock.now_ns()
        with self._changed:
            ends = [(pending, why) for pending in self._taken if (why := pending.hopeless(now))]
            gone = {id(pending) for pending, _ in ends}
            self._taken = [pending for pending in self._taken if id(pending) not in gone]
        for pending, why in ends:
            pending.requester.finish(why)

    @property
    def ended(self) -> bool:
        """Whether it has nothing to do any more, and takes nothing."""
        return self._ended

    def broken_backends(self) -> tuple[str, ...]:
        """The backends that another one stands in for, as people are told of them."""
        with self._changed:
            return tuple(map(str, self._broken))

    def stop(self) -> None:
        """The version is loaded anew or unloaded. `leave` is to follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def leave(self) -> None:
        """What waits here goes to whatever serves now, whatever is still being loaded."""
        forward(self._requests(), self._lease)

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the end of its thread; False when it is not through within the time given."""
        if self._thread:
            self._thread.join(timeout_seconds)
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._why or self._ended, self._until_next_try())
                why, ended = self._why, self._ended
            if ended:
                break
            try:
                if why:
                    self._replace(*why)
                else:
                    self._try_again()
            except Exception:
                log.exception("the failover of %s failed in a way that was not foreseen", self._serving.model.name)
                self.stop()
            why = None  # the error's traceback holds the requests that met it, and the broken backend
            with self._changed:
                self._ended = self._ended or (not self._broken and self._why is None)
        self.leave()

    def _requests(self) -> list[Pending]:
        with self._changed:
            taken, self._taken = self._taken, []
            return taken

    def _until_next_try(self) -> float | None:
        waiting = [since + self._reset_ns for since in self._broken.values()]
        return self._clock.seconds_until(min(waiting)) if waiting else None

    def _breaks(self, candidate: Candidate) -> None:
        with self._changed:
            self._broken[candidate] = self._clock.now_ns()

    def _mended(self, candidate: Candidate) -> None:
        with self._changed:
            self._broken.pop(candidate, None)

    def _replace(self, reason: str, error: Exception) -> None:
        """The next candidate that can be loaded serves, or nobody, and then the requests fail."""
        broken, fields = self._serving, self._fields()
        candidate = broken.model.candidate
        self._breaks(candidate)
        log.error(
            "broken: %s (%s): %s: %s", candidate, reason, type(error).__name__, error,
            extra={"fields": fields},
        )  # fmt: skip
        note = f"fell back from {candidate} ({reason}): {type(error).__name__}: {error}"
        others = [each for each in broken.order.all if each != candidate]
        for each in sorted(others, key=self._broken.__contains__):  # what has broken before may have mended since
            if self._load(each, broken, reason, note):
                with self._changed:
                    self._why = None
                self.leave()
                return
            if self._ended:
                return
        self._give_up(broken, error)

    def _give_up(self, broken: Loaded, error: Exception) -> None:
        """Nobody can stand in: what waits fails, and the backend is tried with what comes."""
        log.error("nothing can stand in for it; it is tried again with what comes", extra={"fields": self._fields()})
        self._mended(broken.model.candidate)
        with self._changed:
            self._why = None
        for pending in self._requests():
            failed = ComputeFailed(
                f"{broken.model.title} failed to compute, and nothing else can: {type(error).__name__}: {error}"
            )
            pending.requester.finish(pending.hopeless(self._clock.now_ns()) or failed)
        broken.model.mend()

    def _try_again(self) -> None:
        """Goes back to the best candidate that works again."""
        now = self._clock.now_ns()
        order = self._serving.order.all
        for candidate in order:
            if candidate == self._serving.model.candidate:
                break
            if now - self._broken.get(candidate, now) < self._reset_ns:
                continue
            if self._load(candidate, self._serving, RECOVERED, ""):
                break
        better = order[: order.index(self._serving.model.candidate)]
        with self._changed:
            self._broken = {candidate: since for candidate, since in self._broken.items() if candidate in better}

    def _load(self, candidate: Candidate, instead_of: Loaded, why: str, note: str) -> bool:
        """Whether the candidate serves now. Otherwise it counts as broken, or this object has ended."""
        try:
            # Requests wait for whoever stands in, and need not be spared; nobody waits for what is tried again.
            with self._at_work(), background.work() if why == RECOVERED else contextlib.nullcontext():
                loaded = self._load_in(instead_of.request, candidate, instead_of.order)
        except Exception as error:  # whatever a runtime raises: the next candidate is tried
            self._breaks(candidate)
            foreseen = isinstance(error, StartupError | OSError)
            log.warning(
                "%s cannot stand in: %s", candidate, error, extra={"fields": self._fields()}, exc_info=not foreseen
            )
            return False
        loaded = loaded.standing_in(note)
        try:
            stands_in = self._stand_in(loaded, instead_of, why)
        except NotReady:  # the server leaves
            stands_in = False
        if not stands_in:
            self.stop()
            return False
        self._serving = loaded
        self._mended(candidate)
        return True

    def _fields(self) -> dict[str, object]:
        return {"model": self._serving.model.name, "version": self._serving.model.version}


def forward(requests: Sequence[Pending], lease: Callable[[], Lease]) -> None:
    """Lets whatever serves now answer the requests."""
    for pending in requests:
        try:
            held = lease()
        except ServingError as error:
            pending.requester.finish(NotReady(f"its backend has failed, and {error}"))
            continue
        try:
            pending.requester.move(held)
        except ServingError as error:
            held.release()
            pending.requester.finish(error)
            continue
        try:
            held.model.submit(pending, handed_over=True)
        except ServingError as error:
            pending.requester.finish(error)
