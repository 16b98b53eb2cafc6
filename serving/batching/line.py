"""The requests that wait for one model, in the order in which they are served.

One list has all of them: the lowest level first, within a level those whose time is not up before those that were put behind,
then by arrival. So whoever decides what is taken looks at a list, whatever the policy. Plain data, guarded by the lock of
its queue.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from serving.batching.pace import Pace
from serving.batching.pending import Pending
from serving.batching.policy import BatchPolicy
from serving.clock import Clock
from serving.errors import Overloaded, ServingError, TimedOut

MOST_SENT_AWAY = 4  # times those that wait, who are told to come one after the other
END_OF_TIME = 2**63  # later than any instant of the clock

Ends = list[tuple[Pending, ServingError]]

_rank = attrgetter("rank")


class Line:
    """The line before the model called `name`; `waiting` and `size`, its bytes, are for others to read.

    `full_for_all` is asked from any thread without the lock; what it says may be over by then. By bytes there is always room for
    one request, however large, so that it can be computed.
    """

    def __init__(self, name: str, policy: BatchPolicy, clock: Clock) -> None:
        self.waiting: list[Pending] = []
        self.size = 0
        self.pace = Pace()
        self._name = name
        self._policy = policy
        self._clock = clock
        self._most, self._most_bytes = policy.queue_of(1).max_requests, policy.max_queue_bytes
        self._fewest = min(
            policy.queue_of(level).max_requests for level in range(1, policy.levels + 1)
        )  # to fill a level
        self._by_arrival = policy.arrival_alone
        self._in_level: Counter[int] = Counter()  # where not all is by arrival
        self._gone = False  # whether a client has gone since somebody looked
        self._next_end_ns = END_OF_TIME  # no time of a request that waits is up earlier

    @property
    def next_end_ns(self) -> int:
        """When somebody is to look for those whose time is up; now, at the latest, where a client has gone."""
        return 0 if self._gone else self._next_end_ns

    def told_that_one_has_gone(self) -> None:
        """The client of one of those that wait has gone."""
        self._gone = True

    def add(self, pending: Pending, *, anyway: bool = False) -> Overloaded | None:
        """Takes a request in, behind all others of its level; why not, if there is no room and it is not to come in `anyway`."""
        crowded = len(self.waiting) >= self._fewest or self.size + pending.size > self._most_bytes
        if crowded and not anyway and (why := self._full(pending)):
            return why
        self.size += pending.size
        if pending.cancelled:
            self._gone = True  # before it could tell
        if pending.deadline_ns is not None and pending.deadline_ns < self._next_end_ns:
            self._next_end_ns = pending.deadline_ns
        if self._by_arrival:
            if pending.rank:  # which it had elsewhere
                pending.rank, pending.patient_until_ns = 0, None
            self.waiting.append(pending)
            return None
        level = self._policy.level_of(pending.turn.priority)
        patience_ns = self._policy.queue_of(level).patience_ns(pending.turn.timeout_ns)
        pending.patient_until_ns = pending.timeline.decoded + patience_ns if patience_ns else None
        if pending.patient_until_ns is not None and pending.patient_until_ns < self._next_end_ns:
            self._next_end_ns = pending.patient_until_ns
        self._in_level[level] += 1
        self._place(pending, 2 * level)
        return None

    def full_for_all(self, ahead: int, size: int) -> Overloaded | None:
        """Why there is no room for any request behind so many that are on their way, all together of `size` bytes.

        None if there may be room: a request that is not decoded has not said of which level it is.
        """
        policy = self._policy
        if policy.levels == 1:
            if (there := len(self.waiting) + ahead) >= self._most:
                return self._too_many(there, self._most)
        elif len(self._in_level) >= policy.levels:
            counts = [(count, policy.queue_of(level).max_requests) for level, count in list(self._in_level.items())]
            if all(count >= most for count, most in counts):
                return self._too_many(sum(count for count, _ in counts), sum(most for _, most in counts))
        if self.size + size > self._most_bytes and (self.waiting or ahead):
            return self._too_large(size)
        return None

    def remove(self, chosen: Sequence[Pending]) -> None:
        """Takes some out, of one or more and in the order of the line; what they are not among is not looked at."""
        if not self._by_arrival:
            self._in_level.subtract([pending.rank // 2 for pending in chosen])
        self.size -= sum([pending.size for pending in chosen])
        if self.waiting[len(chosen) - 1] is chosen[-1]:
            del self.waiting[: len(chosen)]
            return
        kept: list[Pending] = []
        at, left = 0, iter(chosen)
        wanted = next(left, None)
        while wanted is not None:
            pending = self.waiting[at]
            at += 1
            if pending is wanted:
                wanted = next(left, None)
            else:
                kept.append(pending)
        self.waiting[:at] = kept

    def remove_all(self) -> list[Pending]:
        """Everybody, in order."""
        everybody, self.waiting = self.waiting, []
        self.size = 0
        self._in_level.clear()
        return everybody

    def remove_hopeless(self, now_ns: int) -> Ends:
        """Those for whom nobody waits, and those that have waited too long, with the reason.

        Where they are to be delayed instead, they go behind their level.
        """
        if now_ns < self.next_end_ns:
            return []
        self._gone = False
        ends: Ends = []
        late: list[Pending] = []
        for pending in self.waiting:
            if why := pending.hopeless(now_ns):
                ends.append((pending, why))
            elif (until_ns := pending.patient_until_ns) is not None and now_ns >= until_ns:
                if self._policy.queue_of(pending.rank // 2).delays:
                    late.append(pending)
                else:
                    ends.append((pending, self._timed_out(pending, until_ns, now_ns)))
        if ends:
            self.remove([pending for pending, _ in ends])
        if late:
            self._put_behind(late)
        times = [
            time_ns
            for pending in self.waiting
            for time_ns in (pending.deadline_ns, pending.patient_until_ns)
            if time_ns is not None
        ]
        self._next_end_ns = min(times, default=END_OF_TIME)
        return ends

    def _full(self, pending: Pending) -> Overloaded | None:
        if self._by_arrival:
            if len(self.waiting) >= self._most:
                return self._too_many(len(self.waiting), self._most)
        else:
            level = self._policy.level_of(pending.turn.priority)
            most = self._policy.queue_of(level).max_requests
            if self._in_level[level] >= most:
                return self._too_many(self._in_level[level], most, level)
        if self.size + pending.size > self._most_bytes and self.waiting:
            return self._too_large(pending.size)
        return None

    def _put_behind(self, late: Sequence[Pending]) -> None:
        self.remove(late)
        for pending in late:
            pending.patient_until_ns = None
            self.size += pending.size
            self._in_level[pending.rank // 2] += 1
            self._place(pending, pending.rank + 1)

    def _place(self, pending: Pending, rank: int) -> None:
        pending.rank = rank
        if not self.waiting or self.waiting[-1].rank <= rank:
            self.waiting.append(pending)
        else:
            self.waiting.insert(bisect_right(self.waiting, rank, key=_rank), pending)

    def _timed_out(self, pending: Pending, until_ns: int, now_ns: int) -> TimedOut:
        came_ns = pending.timeline.decoded
        return TimedOut(
            f"Request timeout expired: waited {(now_ns - came_ns) / 1e6:.1f} ms for {self._name}, and was to wait no more than "
            f"{(until_ns - came_ns) / 1e6:.1f} ms; nothing was computed"
        )

    def _too_many(self, waiting: int, most: int, level: int = 0) -> Overloaded:
        where = f" with priority {level}" if level and self._policy.levels > 1 else ""
        return self._overloaded(
            f"{waiting} requests wait{where} for {self._name}, which allows {most}", "max_queue_size"
        )

    def _too_large(self, size: int) -> Overloaded:
        there = self.size + size
        return self._overloaded(
            f"{there} bytes of requests would wait for {self._name}, which allows {self._most_bytes}", "max_queue_bytes"
        )

    def _overloaded(self, why: str, limit: str) -> Overloaded:
        waiting = len(self.waiting)
        retry_ms = self.pace.told_ms(waiting + self.pace.sent_away, self._clock.now_ns())
        self.pace.sent_away = min(self.pace.sent_away + 1, MOST_SENT_AWAY * waiting)
        return Overloaded(
            f"Exceeds maximum queue size: {why}; try again in {retry_ms} ms, or raise {limit} in config.pbtxt", retry_ms
        )
