"""Which of the waiting requests are computed together: a pure decision over plain data.

Requests of another key do not end a batch, they are passed over. Those of one key may be of unequal length where the model takes
`lengths`; then they are cut into batches of about one length (`serving.batching.lengths`). The first in line is in the first
batch that goes, so nobody starves; while it waits for company, a batch that need not wait any longer goes before it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from serving.batching.costs import BY_RULE, Cost
from serving.batching.lengths import cheapest
from serving.batching.pending import Pending, Piece, whole
from serving.batching.policy import BatchPolicy

LOOK_AHEAD = 4  # full batches of single rows, among which one is chosen
LEAST_LOOKED_AT, MOST_LOOKED_AT = 64, 512  # requests; and no fewer than a batch may hold


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

    `cost` says what a call takes. Only the first `looked_at` of those waiting are looked at.
    """
    if not waiting:
        return Wait(None)
    if not policy.dynamic or (len(waiting) == 1 and not policy.max_delay_ns):
        return Take([whole(waiting[0])])
    soonest: int | None = None
    for batch in _batches(waiting, policy, cost):
        until = 0
        if policy.max_delay_ns:  # by who has waited longest, which need not be who is served first
            until = min([pending.timeline.decoded for pending in batch]) + policy.max_delay_ns
        decision = _now_or_later(batch, policy, until, now)
        if isinstance(decision, Take):
            return decision
        soonest = decision if soonest is None else min(soonest, decision)
    return Wait(soonest)


def looked_at(policy: BatchPolicy) -> int:
    """How many of the first in line a plan looks at."""
    return max(min(max(LOOK_AHEAD * policy.max_rows, LEAST_LOOKED_AT), MOST_LOOKED_AT), policy.max_rows)


def _now_or_later(batch: Sequence[Pending], policy: BatchPolicy, until: int, now: int) -> Take | int:
    """The batch, as far as it is computed now, or when it is to be looked at again."""
    preferred, most = policy.preferred_rows, policy.max_rows
    rows = sum([pending.rows for pending in batch])
    if rows > most or preferred:
        ends = itertools.takewhile(lambda end: end <= most, itertools.accumulate([pending.rows for pending in batch]))
        fitting = list(ends) or [batch[0].rows]
        if reached := [count for count, end in enumerate(fitting, 1) if end in preferred]:
            return Take([whole(pending) for pending in batch[: reached[-1]]])
        batch = batch[: len(fitting)]
    larger = preferred and rows > preferred[-1]  # which it only gets further away from
    if rows >= most or larger or now >= until:
        return Take([Piece(pending, pending.rows, pending.steps) for pending in batch])
    return until


def _batches(waiting: Sequence[Pending], policy: BatchPolicy, cost: Cost) -> Iterator[Sequence[Pending]]:
    """Who would be computed together, each batch in the order of the queue; the batch of the first in line first."""
    line = waiting[: looked_at(policy)]
    while line:
        chosen = _of_about_one_length(line, policy, cost)
        yield chosen
        taken = set(map(id, chosen))
        line = [pending for pending in line if id(pending) not in taken]


def _of_about_one_length(line: Sequence[Pending], policy: BatchPolicy, cost: Cost) -> Sequence[Pending]:
    """Those that are computed with the first. Who is served after it, by level or by delay, joins it, but makes it no longer."""
    first = line[0]
    key, own, rank = first.key, first.steps, first.rank
    alike = [pending for pending in line if pending.key is key or pending.key == key]
    beginning = alike[: policy.max_rows]
    if [pending.steps for pending in beginning] == [own] * len(
        beginning
    ):  # as mostly; and then that is all there is, or full
        return beginning
    rows: dict[int, int] = {}
    for pending in alike:  # which are in the order of their ranks
        if pending.rank != rank:
            break
        rows[pending.steps] = rows.get(pending.steps, 0) + pending.rows
    shortest, longest = next(each for each in cheapest(rows, cost) if each[1] >= own)
    lengths = [steps for steps in sorted(rows, reverse=True) if shortest <= steps <= longest]
    enough = _no_more_rows(lengths, own, rows, policy.max_rows)
    chosen = _no_more_padding(enough, own, rows, policy.max_padding_ratio)
    shortest, longest = chosen[-1], chosen[0]
    return [pending for pending in alike if shortest <= pending.steps <= longest]


def _no_more_rows(lengths: Sequence[int], own: int, rows: Mapping[int, int], most: int) -> Sequence[int]:
    """Of lengths, longest first, the neighbours of `own` in a batch, full batches being made from the longest on."""
    batch: list[int] = []
    filled = 0
    for steps in lengths:
        if batch and filled + rows[steps] > most:
            if batch[-1] <= own:
                break
            batch, filled = [], 0
        batch.append(steps)
        filled += rows[steps]
    return batch


def _no_more_padding(lengths: Sequence[int], own: int, rows: Mapping[int, int], most: float) -> Sequence[int]:
    """Of lengths, longest first, those around `own` of which no more than this share is padding."""
    lengths = list(lengths)
    while len(lengths) > 1:
        computed = lengths[0] * sum(rows[steps] for steps in lengths)
        if computed - sum(steps * rows[steps] for steps in lengths) <= most * computed:
            break
        del lengths[-1 if lengths[-1] != own else 0]
    return lengths
