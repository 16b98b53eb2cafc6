"""How the simulated model's queue is to behave: a policy from the seed, and a model that is looked at whenever it decides.

What is promised is worked out here once more, from the policy and the requests alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from serving.batching.model import Model
from serving.batching.pending import Pending, Turn
from serving.batching.plan import Take, Wait
from serving.batching.policy import BatchPolicy, QueuePolicy

MS = 1_000_000


def drawn_turn(draw: random.Random) -> Turn:
    """What a client asks of the queue: mostly nothing."""
    return Turn(draw.choice((0, 0, 1, 2, 3, 9)), draw.choice((0, 0, 0, 2, 6)) * MS)


def drawn_policy(draw: random.Random) -> BatchPolicy:
    """Limits that are met now and then, in one level or more."""
    levels = draw.choice((1, 1, 1, 2, 3))
    keeps_order = levels == 1 and draw.random() < 0.4
    queues = {level: _drawn_queue(draw, keeps_order) for level in range(1, levels + 1) if draw.random() < 0.5}
    return BatchPolicy(
        max_rows=draw.choice((2, 4, 8)),
        max_delay_ns=draw.choice((0, 0, 2 * MS)),
        dynamic=draw.random() < 0.8,
        max_padding_ratio=draw.choice((0.0, 0.3, 1.0)),
        queue=_drawn_queue(draw, keeps_order),
        levels=levels,
        default_level=draw.randint(1, levels),
        level_queues=queues,
        max_queue_bytes=draw.choice((100, 1_000_000, 1_000_000)),
        keeps_order=keeps_order,
    )


def _drawn_queue(draw: random.Random, keeps_order: bool) -> QueuePolicy:
    return QueuePolicy(
        max_requests=draw.choice((1, 3, 1000, 1000)),
        timeout_ns=draw.choice((0, 0, 3, 8)) * MS,
        allows_less=draw.random() < 0.3,
        delays=draw.random() < 0.5 and not keeps_order,
    )


def level_of(pending: Pending, policy: BatchPolicy) -> int:
    """The level in which a request is served."""
    priority = pending.turn.priority
    return priority if priority in range(1, policy.levels + 1) else policy.default_level


def time_is_up_ns(pending: Pending, policy: BatchPolicy) -> int | None:
    """Until when a request may wait, by its own wish and that of its level."""
    queue = policy.level_queues.get(level_of(pending, policy), policy.queue)
    asked = [pending.turn.timeout_ns] if queue.allows_less else []
    times = [time_ns for time_ns in (queue.timeout_ns, *asked) if time_ns]
    return pending.timeline.decoded + min(times) if times else None


class Inspected(Model):
    """A model that tells `broken` what is wrong with the line whenever somebody decides what to take from it.

    `promised` is the policy that its queue is to keep; `arrived` and `left` are requests in the order of their arrival and of
    their answers; `seen` is told of what happens to a request; `moved` says whether anybody came in by another door.
    """

    def __init__(
        self,
        *,
        promised: BatchPolicy,
        moved: Callable[[], bool],
        broken: Callable[[str], None],
        seen: Callable[[str, Pending], None],
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.arrived: list[Pending] = []
        self.left: list[Pending] = []
        self._promised = promised
        self._moved = moved
        self._broken = broken
        self._seen = seen
        self._late: set[Pending] = set()

    def _plan(self, waiting: Sequence[Pending], policy: BatchPolicy, now: int) -> Take | Wait:
        try:
            self._look(waiting)
        except AssertionError as broken:
            self._broken(f"the line of {self.candidate}: {broken}")
        return super()._plan(waiting, policy, now)

    def _look(self, waiting: Sequence[Pending]) -> None:
        policy, now = self._promised, self._clock.now_ns()
        self.arrived += [pending for pending in waiting if pending not in self.arrived]
        places = []
        for pending in waiting:
            level, until_ns = level_of(pending, policy), time_is_up_ns(pending, policy)
            late = until_ns is not None and now >= until_ns
            assert not late or policy.queue_of(level).delays, "one waits though its time is up"
            assert pending.deadline_ns is None or now < pending.deadline_ns, "one waits though its client does not"
            if late and pending not in self._late:
                self._late.add(pending)
                self._seen("delayed", pending)
            places.append((level, late))
        assert all(one <= other for one, other in pairwise(places)), f"it is served as {places}"
        sizes = [pending.size for pending in waiting]
        assert self.queue.size == sum(sizes), "bytes are counted wrongly"
        if not self._moved():
            assert len(sizes) < 2 or sum(sizes) <= policy.max_queue_bytes, f"{sum(sizes)} bytes wait"
            for level in {level for level, _ in places}:
                waits = sum(one == level for one, _ in places)
                assert waits <= policy.queue_of(level).max_requests, f"{waits} wait in level {level}"

    def hands_over(self, requests: Sequence[Pending]) -> None:
        """These give their places up; who comes back has a new one."""
        self.arrived = [pending for pending in self.arrived if pending not in requests]

    def check_order(self) -> None:
        """Whether answers have left in the order of arrival, where that is promised."""
        if self._promised.keeps_order:
            places = [self.arrived.index(pending) for pending in self.left if pending in self.arrived]
            assert places == sorted(places), f"answers of {self.candidate} have left in the order {places}"
