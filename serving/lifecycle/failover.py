"""When a backend breaks under load: somebody else answers what it could not, and it is tried again later.

The requests of the broken backend wait here while the next candidate of the model's order is loaded, verified and warmed up;
then they go there, and nobody's request has failed. A backend that is tried again is loaded anew and must give its
golden samples' answers, since a context that has lost its device never works again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from serving.batching.model import Lease, Model
from serving.batching.plan import Pending
from serving.errors import ComputeFailed, NotReady, ServingError, StartupError
from serving.loading import loader
from serving.loading.ranking import Candidate
from serving.machine import background
from serving.telemetry.timeline import now_ns

log = logging.getLogger(__name__)

RECOVERED = "recovered"

StandIn = Callable[[Model, Model, str, str], bool]


class Failover:
    """Stands by one version from the moment at which its backend breaks until the first choice serves again.

    `stand_in(new, old, why, note)` makes a model answer instead of another, False if that one does not serve any more;
    `lease()` gives a lease on whatever serves the version. While something is loaded, `at_work()` is held. All are called from
    the thread that this object owns, and `lease` from whoever calls `leave` too.
    """

    def __init__(
        self,
        model: Model,
        reset_seconds: float,
        stand_in: StandIn,
        lease: Callable[[], Lease],
        at_work: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.broken: dict[Candidate, float] = {}  # since when, in seconds of the monotonic clock
        self._serving = model
        self._reset_seconds = reset_seconds
        self._stand_in = stand_in
        self._lease = lease
        self._at_work = at_work
        self._changed = threading.Condition()  # guards what follows
        self._taken: list[Pending] = []
        self._why: tuple[str, Exception] | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"failover of {model.name}", daemon=True)
        self._thread.start()

    def take(self, requests: Sequence[Pending], reason: str, error: Exception) -> bool:
        """Requests that the model which serves cannot compute; False if this object has ended. Never blocks for long.

        Those whose clients have gone meanwhile are let go: each holds a thread that answers other models too.
        """
        now = now_ns()
        with self._changed:
            if self._ended:
                return False
            self._taken += requests
            ends = [(pending, why) for pending in self._taken if (why := pending.hopeless(now))]
            gone = {pending for pending, _ in ends}
            self._taken = [pending for pending in self._taken if pending not in gone]
            if requests:
                self._why = self._why or (reason, error)
                self._changed.notify_all()
        for pending, why in ends:
            pending.finish(why)
        return True

    def stop(self) -> None:
        """The version is loaded anew or unloaded. `leave` is to follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def leave(self) -> None:
        """What waits here goes to whatever serves now, whatever is still being loaded."""
        forward(self._requests(), self._lease)

    def is_mine(self) -> bool:
        """Whether the caller's thread is the one that this object owns."""
        return threading.current_thread() is self._thread

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
                log.exception("the failover of %s failed in a way that was not foreseen", self._serving.name)
                self.stop()
            with self._changed:
                self._ended = self._ended or (not self.broken and self._why is None)
        self.leave()

    def _requests(self) -> list[Pending]:
        with self._changed:
            taken, self._taken = self._taken, []
            return taken

    def _until_next_try(self) -> float | None:
        waiting = [since + self._reset_seconds for since in self.broken.values()]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _replace(self, reason: str, error: Exception) -> None:
        """The next candidate that can be loaded serves, or nobody, and then the requests fail."""
        broken, fields = self._serving, self._fields()
        self.broken[broken.candidate] = time.monotonic()
        log.error(
            "broken: %s (%s): %s: %s", broken.candidate, reason, type(error).__name__, error,
            extra={"fields": fields},
        )  # fmt: skip
        note = f"fell back from {broken.candidate} ({reason}): {type(error).__name__}: {error}"
        others = [candidate for candidate in broken.order.all if candidate != broken.candidate]
        for candidate in sorted(others, key=self.broken.__contains__):  # what has broken before may have mended since
            if self._load(candidate, broken, reason, note):
                with self._changed:
                    self._why = None
                self.leave()
                return
            if self._ended:
                return
        log.error("nothing can stand in for it; it is tried again with what comes", extra={"fields": fields})
        del self.broken[broken.candidate]
        with self._changed:
            self._why = None
        for pending in self._requests():
            failed = ComputeFailed(
                f"model '{broken.name}' version {broken.version} failed to compute, and nothing else can: "
                f"{type(error).__name__}: {error}"
            )
            pending.finish(pending.hopeless(now_ns()) or failed)
        broken.mend()

    def _try_again(self) -> None:
        """Goes back to the best candidate that works again."""
        now = time.monotonic()
        for candidate in self._serving.order.all:
            if candidate == self._serving.candidate:
                break
            if now - self.broken.get(candidate, now) < self._reset_seconds:
                continue
            if self._load(candidate, self._serving, RECOVERED, ""):
                break
        best = self._serving.order.all.index(self._serving.candidate)
        better = self._serving.order.all[:best]
        self.broken = {candidate: since for candidate, since in self.broken.items() if candidate in better}

    def _load(self, candidate: Candidate, instead_of: Model, why: str, note: str) -> bool:
        """Whether the candidate serves now. Otherwise it counts as broken, or this object has ended."""
        try:
            # Requests wait for whoever stands in, and need not be spared; nobody waits for what is tried again.
            with self._at_work(), background.work() if why == RECOVERED else contextlib.nullcontext():
                model = loader.load_in(instead_of.wanted, candidate, instead_of.order)
        except Exception as error:  # whatever a runtime raises: the next candidate is tried
            self.broken[candidate] = time.monotonic()
            foreseen = isinstance(error, StartupError | OSError)
            log.warning(
                "%s cannot stand in: %s", candidate, error, extra={"fields": self._fields()}, exc_info=not foreseen
            )
            return False
        try:
            stands_in = self._stand_in(model, instead_of, why, note)
        except NotReady:  # the server leaves
            stands_in = False
        if not stands_in:
            self.stop()
            return False
        self._serving = model
        self.broken.pop(candidate, None)
        return True

    def _fields(self) -> dict[str, object]:
        return {"model": self._serving.name, "version": self._serving.version}


def forward(requests: Sequence[Pending], lease: Callable[[], Lease]) -> None:
    """Lets whatever serves now answer the requests."""
    for pending in requests:
        try:
            held = lease()
        except ServingError as error:
            pending.finish(NotReady(f"its backend has failed, and {error}"))
            continue
        pending.move(held)
        try:
            held.model.submit(pending, handed_over=True)
        except ServingError as error:
            pending.finish(error)
