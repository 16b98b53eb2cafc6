"""Which of the waiting requests are computed together: a pure decision over plain data.

Requests of another key do not end a batch, they are passed over and stay first in line for the next one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from serving.batching.pending import Pending, Piece, whole
from serving.batching.policy import BatchPolicy


@dataclasses.dataclass(frozen=True)
class Take:
    """Compute these together; their requests are in the order of the queue."""

    pieces: list[Piece]


@dataclasses.dataclass(frozen=True)
class Wait:
    """Nothing to do until this time (ns), or until a request arrives if it is None."""

    until_ns: int | None


def plan(waiting: Sequence[Pending], policy: BatchPolicy, now: int) -> Take | Wait:
    """What to do with the queue now. Pure: looks at rows, keys and arrival, touches nothing.

    The first in line is always part of the batch, so nobody starves. Those of its key join in order of arrival as
    long as the rows fit.
    """
    if not waiting:
        return Wait(None)
    first = waiting[0]
    if not policy.dynamic:
        return Take([whole(first)])
    pieces: list[Piece] = []
    rows, preferred, full = 0, 0, False
    for pending in waiting:
        if pending.key != first.key:
            continue
        if rows + pending.rows > policy.max_rows and pieces:
            full = True
            break
        pieces.append(whole(pending))
        rows += pending.rows
        if rows in policy.preferred_rows:
            preferred = len(pieces)
        if rows >= policy.max_rows:
            full = True
            break
    if preferred:
        return Take(pieces[:preferred])
    until = first.timeline.decoded + policy.max_delay_ns
    if full or now >= until:
        return Take(pieces)
    return Wait(until)
