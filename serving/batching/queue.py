"""The queue of one model: requests are offered from any thread, workers take batches out of it.

There is one queue however many instances the model has, so that order, limits and delays hold for the model. While all
instances compute, a batch forms here by itself: a delay of 0 is the right default. Nobody's request is completed while
the lock is held.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence

from serving.batching.line import END_OF_TIME, Ends, Line
from serving.batching.ordering import Outbox
from serving.batching.pending import Pending, Piece, whole
from serving.batching.plan import Take, Wait, plan
from serving.batching.policy import BatchPolicy
from serving.clock import SYSTEM, Clock
from serving.errors import ComputeFailed, DeadlineExceeded, NotReady, Overloaded, ServingError

MOST_BEHIND = 4  # rows that wait behind all requests
PATIENCE_NS = 1_000_000_000  # after which one of them is computed although requests wait

Decide = Callable[[Sequence[Pending], BatchPolicy, int], Take | Wait]


class Queue:
    """What waits for the model called `name`. `decide` says which requests are taken together."""

    def __init__(self, name: str, policy: BatchPolicy, clock: Clock = SYSTEM, decide: Decide = plan) -> None:
        self._name = name
        self._policy = policy
        self._clock = clock
        self._decide = decide
        self._outbox = Outbox() if policy.keeps_order else None
        self._changed = clock.condition()  # guards what follows; only workers wait for it
        self._line = Line(name, policy, clock)
        self._behind: collections.deque[Pending] = collections.deque()
        self._workers = 0
        self._broken = 0  # of the workers, those whose backend is
        self._hurrying = False
        self._draining = False
        self._mended = 0

    @property
    def depth(self) -> int:
        """Requests that wait for a batch."""
        return len(self._line.waiting)

    @property
    def size(self) -> int:
        """The bytes in which they were sent."""
        return self._line.size

    # From any thread.

    def offer(self, pending: Pending, *, handed_over: bool = False) -> None:
        """Queues a request. One that was `handed_over` had its place elsewhere and is not turned away.

        Raises at the door: `Overloaded` when the queue is full, `DeadlineExceeded` when the client's time is up already,
        `NotReady` after `drain`. What fails later arrives through the request's `finish`.
        """
        for _, why in self.offer_all([pending], handed_over=handed_over):
            raise why

    def offer_all(
        self, requests: Sequence[Pending], *, handed_over: bool = False
    ) -> list[tuple[Pending, ServingError]]:
        """Queues requests that have come together, in their order; gives back those that `offer` refuses, and why."""
        refused: list[tuple[Pending, ServingError]] = []
        with self._changed:
            for pending in requests:
                why = self._refusal(pending) or self._line.add(pending, anyway=handed_over)
                if why:
                    refused.append((pending, why))
                    continue
                pending.holder = self
                if self._outbox:
                    self._outbox.enter(pending)
            if len(refused) < len(requests):
                self._notify()  # who takes a batch wakes another worker for what is left
        return refused

    def full(self, ahead: int, size: int) -> Overloaded | None:
        """Why there is no room for any request behind so many that are on their way, all together of `size` bytes.

        None if there may be; `offer` has the last word. Asked before a request is decoded.
        """
        return self._line.full_for_all(ahead, size)

    def look_again(self) -> None:
        """The client of a request that waits here has gone."""
        with self._changed:
            self._line.told_that_one_has_gone()
            self._changed.notify_all()

    def offer_behind(self, pending: Pending) -> bool:
        """Queues what nobody waits for behind every request; False when there is no room, or the queue is being drained.

        It is computed when nothing else waits, or a second has passed; what is left when the queue is drained is dropped.
        """
        with self._changed:
            if self._hurrying or len(self._behind) >= MOST_BEHIND:
                return False
            self._behind.append(pending)
            self._notify()
            return True

    def part(self) -> None:
        """From now on every request is computed alone."""
        with self._changed:
            self._policy = dataclasses.replace(self._policy, dynamic=False)

    def hurry(self) -> None:
        """From now on nobody waits for company; what comes is still taken."""
        with self._changed:
            self._hurrying = True
            self._changed.notify_all()

    def drain(self) -> None:
        """Refuses new requests; workers end when what is queued is answered."""
        with self._changed:
            self._hurrying = self._draining = True
            self._changed.notify_all()

    def mend(self) -> None:
        """Nothing can take over from a broken backend: its worker is to try it again."""
        with self._changed:
            self._mended += 1
            self._changed.notify_all()

    # From workers.

    def join(self) -> None:
        """A worker begins to take."""
        with self._changed:
            self._workers += 1

    def leave(self, *, broken: bool) -> None:
        """A worker takes no more. After the last one nobody is left waiting: what waits fails, what comes is refused."""
        left: list[Pending] = []
        with self._changed:
            self._workers -= 1
            self._broken -= broken
            self._changed.notify_all()
            if not self._workers:
                self._hurrying = self._draining = True
                left = self._line.remove_all()
        for pending in left:
            pending.requester.finish(ComputeFailed(f"the worker of {self._name} has ended; the server's log says why"))

    def take(self) -> Sequence[Piece]:
        """The next batch, waited for; nothing when the queue is drained. Ends on the way those for whom nobody waits."""
        while True:
            with self._changed:
                now, waiting = self._clock.now_ns(), self._line.waiting
                self._line.pace.back(now)
                ends = self._line.remove_hopeless(now)
                if not ends:
                    if self._draining and not waiting:
                        return ()
                    if self._turn_of_what_is_behind(now):
                        if waiting:
                            self._notify()  # this worker may have been woken for them; another one is to look
                        return [whole(self._behind.popleft())]
                    decision = self._decide(waiting, self._policy, END_OF_TIME if self._hurrying else now)
                    if isinstance(decision, Take):
                        self._line.remove([piece.pending for piece in decision.pieces])
                        self._line.pace.taken(len(decision.pieces), now)
                        if waiting:
                            self._notify()  # of the others there may be a batch for another worker
                        break
                    self._changed.wait(self._seconds_until(decision.until_ns))
            self._finish(ends)
        return decision.pieces

    def breaks(self) -> int:
        """The backend of a worker is broken; it calls `take_all` with the number returned until another one comes back."""
        with self._changed:
            self._line.pace.back(self._clock.now_ns())
            self._broken += 1
            self._changed.notify_all()
            return self._mended

    def give_up(self, requests: Sequence[Pending]) -> None:
        """Somebody else will answer these: nobody's answer waits for theirs."""
        if self._outbox:
            self._outbox.give_up(requests)

    def take_all(self, mended: int) -> tuple[list[Pending], int] | None:
        """For the worker of a broken backend: everything that waits, once no other worker can compute it.

        Another number than `mended` comes back when the backend is to be tried again, and then nothing is taken. None when
        the queue is drained.
        """
        with self._changed:
            ends = self._line.remove_hopeless(self._clock.now_ns())
            something = self._all_broken if self._line.waiting else self._draining
            if not (ends or something or self._mended != mended):
                self._changed.wait(None)
                ends = self._line.remove_hopeless(self._clock.now_ns())
            taken: list[Pending] = []
            over = False
            if self._mended != mended:
                self._broken -= 1
                mended = self._mended
            else:
                if self._all_broken:
                    taken = self._line.remove_all()
                over = self._draining and not (taken or self._line.waiting)
        self._finish(ends)
        return None if over else (taken, mended)

    @property
    def _all_broken(self) -> bool:
        return self._broken == self._workers

    # Inside.

    def _refusal(self, pending: Pending) -> ServingError | None:
        if pending.deadline_ns is not None and pending.timeline.decoded >= pending.deadline_ns:
            return DeadlineExceeded("Deadline Exceeded: the client's deadline had passed when the request was decoded")
        if self._draining:
            return NotReady(f"{self._name} is not at ready state: it is being unloaded, or its worker has ended")
        return None

    def _turn_of_what_is_behind(self, now: int) -> bool:
        if not self._behind or self._hurrying:
            return False
        return not self._line.waiting or now - self._behind[0].timeline.decoded >= PATIENCE_NS

    def _notify(self) -> None:
        """Wakes one worker; where one is broken, all, since it might be the one that wakes and has nothing to take."""
        if self._broken:
            self._changed.notify_all()
        else:
            self._changed.notify()

    def _finish(self, ends: Ends) -> None:
        for pending, why in ends:
            pending.requester.finish(why)

    def _seconds_until(self, until_ns: int | None) -> float | None:
        """How long a worker may sleep when nothing comes: until the time given, or somebody's time is up."""
        if until_ns is None:
            return None
        return self._clock.seconds_until(min(until_ns, self._line.next_end_ns))
