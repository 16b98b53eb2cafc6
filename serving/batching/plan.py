"""Which of the waiting requests are computed together: a pure decision over plain data.

Requests of another key do not end a batch, they are passed over. Those of one key may be of unequal length where the model takes
`lengths`; then they are cut into batches of about one length (`serving.batching.lengths`). The first in line is in the first
batch that goes, so nobody starves; while it waits for company, a batch that need not wait any longer goes before it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from serving.batching.costs import BY_RULE, Cost
from serving.batching.lengths import cheapest
from serving.batching.pending import Pending, Piece, whole
from serving.batching.policy import BatchPolicy
from serving.batching.rows import padding_ratio
from serving.signature.tensors import BatchKey

LOOK_AHEAD = 4  # full batches of single rows, among which one is chosen
LEAST_LOOKED_AT, MOST_LOOKED_AT = 64, 512  # requests
SLOWER = 0.25  # by which share of its time who is served later may make a batch take longer


@dataclasses.dataclass(frozen=True)
class Take:
    """Compute these together; their requests are in the order of the queue."""

    pieces: list[Piece]


@dataclasses.dataclass(frozen=True)
class Wait:
    """Nothing to do until this time (ns), or until a request arrives if it is None."""

    until_ns: int | None


def plan(waiting: Sequence[Pending], policy: BatchPolicy, now: int, cost: Cost = BY_RULE) -> Take | Wait:
    """What to do with the queue now. Pure: looks at rows, steps, keys and arrival, touches nothing.

    `cost` says what a batch takes. Only the first `looked_at` of those waiting are looked at, and of more only whether they make
    a full batch of one length.
    """
    if not waiting:
        return Wait(None)
    if not policy.dynamic or (len(waiting) == 1 and not policy.max_delay_ns):
        return Take([whole(waiting[0])])
    line = waiting[: looked_at(policy)]
    first = _with_the_first(line, policy, cost)
    if len(first) == len(line) < min(policy.max_rows, len(waiting)):  # there may be more
        alike = list(itertools.takewhile(_like(line[0]), waiting[: policy.max_rows]))
        first = max(first, alike, key=len)
    decision = _now_or_later(first, policy, now)
    if isinstance(decision, Take):
        return decision
    soonest = decision
    for batch in _others(line, first, policy, cost):
        decision = _now_or_later(batch, policy, now)
        if isinstance(decision, Take):
            return decision
        soonest = min(soonest, decision)
    return Wait(soonest)


def looked_at(policy: BatchPolicy) -> int:
    """How many of the first in line a plan looks at."""
    return min(max(LOOK_AHEAD * policy.max_rows, LEAST_LOOKED_AT), MOST_LOOKED_AT)


def _now_or_later(batch: Sequence[Pending], policy: BatchPolicy, now: int) -> Take | int:
    """The batch, as far as it is computed now, or when it is to be looked at again."""
    preferred, most = policy.preferred_rows, policy.max_rows
    rows = sum([pending.rows for pending in batch])
    if rows > most or preferred:
        ends = itertools.takewhile(lambda end: end <= most, itertools.accumulate([pending.rows for pending in batch]))
        fitting = list(ends) or [batch[0].rows]
        reached = [count for count, end in enumerate(fitting, 1) if end in preferred]
        for count in reversed(reached):
            pieces = [whole(pending) for pending in batch[:count]]
            if padding_ratio(pieces) <= policy.max_padding_ratio:  # as that of all of them is
                return Take(pieces)
        batch = batch[: len(fitting)]
    larger = preferred and rows > preferred[-1]  # which it only gets further away from
    if rows < most and not larger and policy.max_delay_ns:
        # By who has waited longest, which need not be who is served first.
        until = min([pending.timeline.decoded for pending in batch]) + policy.max_delay_ns
        if now < until:
            return until
    return Take([Piece(pending, pending.rows, pending.steps) for pending in batch])


def _like(first: Pending) -> Callable[[Pending], bool]:
    key, steps, rank = first.key, first.steps, first.rank
    return lambda pending: pending.steps == steps and pending.rank == rank and pending.key == key


def _with_the_first(line: Sequence[Pending], policy: BatchPolicy, cost: Cost) -> Sequence[Pending]:
    """Those that are computed with the first, in the order of the queue."""
    first = line[0]
    key, own, rank = first.key, first.steps, first.rank
    alike = [pending for pending in line if pending.key is key or pending.key == key]
    beginning = alike[: policy.max_rows]
    if beginning[-1].rank == rank and [pending.steps for pending in beginning] == [own] * len(beginning):
        return beginning  # as mostly; and then that is all there is, or full
    served_first = list(itertools.takewhile(lambda pending: pending.rank == rank, alike))
    rows = _rows(served_first)
    lengths = next(each for each in cheapest(rows, cost) if each[-1] >= own)
    longest, shortest = _around(own, lengths, rows, policy)
    batch = [pending for pending in served_first if shortest <= pending.steps <= longest]
    return [*batch, *_joining(batch, alike[len(served_first) :], longest, policy, cost)]


def _joining(
    batch: Sequence[Pending], later: Sequence[Pending], longest: int, policy: BatchPolicy, cost: Cost
) -> Iterator[Pending]:
    """Who is served later, by level or by delay, and joins a batch: it makes that no longer, and not much slower."""
    rows = sum([pending.rows for pending in batch])
    most_ns = (1 + SLOWER) * cost.of(rows, longest)
    shortest = (1 - policy.max_padding_ratio) * longest
    for pending in later:
        if not shortest <= pending.steps <= longest:
            continue
        rows += pending.rows
        if rows > policy.max_rows or cost.of(rows, longest) > most_ns:
            return
        yield pending


def _others(
    line: Sequence[Pending], first: Sequence[Pending], policy: BatchPolicy, cost: Cost
) -> Iterator[Sequence[Pending]]:
    """The batches that those make who are not computed with the first, each in the order of the queue."""
    taken = set(map(id, first))
    by_key: dict[BatchKey, list[Pending]] = {}
    for pending in line:
        if id(pending) not in taken:
            by_key.setdefault(pending.key, []).append(pending)
    for alike in by_key.values():
        rows = _rows(alike)
        for lengths in cheapest(rows, cost):
            there = [pending for pending in alike if lengths[0] <= pending.steps <= lengths[-1]]
            longest, shortest = _around(there[0].steps, lengths, rows, policy)
            yield [pending for pending in there if shortest <= pending.steps <= longest]


def _rows(requests: Sequence[Pending]) -> dict[int, int]:
    """How many there are of each length."""
    rows: dict[int, int] = {}
    for pending in requests:
        rows[pending.steps] = rows.get(pending.steps, 0) + pending.rows
    return rows


def _around(own: int, lengths: Sequence[int], rows: Mapping[int, int], policy: BatchPolicy) -> tuple[int, int]:
    """The longest and the shortest of lengths, shortest first, that fit into a batch around one of them."""
    batch: list[int] = []
    filled = 0
    for steps in reversed(lengths):  # full batches are made from the longest on
        if batch and filled + rows[steps] > policy.max_rows:
            if batch[-1] <= own:
                break
            batch, filled = [], 0
        batch.append(steps)
        filled += rows[steps]
    begin, end = 0, len(batch) - 1
    true = sum([steps * rows[steps] for steps in batch])
    while begin < end and batch[begin] * filled - true > policy.max_padding_ratio * batch[begin] * filled:
        dropped = batch[end] if batch[end] != own else batch[begin]
        begin, end = (begin, end - 1) if batch[end] != own else (begin + 1, end)
        filled -= rows[dropped]
        true -= dropped * rows[dropped]
    return batch[begin], batch[end]
