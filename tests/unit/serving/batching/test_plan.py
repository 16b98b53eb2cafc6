"""The decision as a table: what waits, what the operator wants, what is taken."""

from __future__ import annotations

import pytest

from serving.batching.pending import Pending, whole
from serving.batching.plan import Take, Wait, plan
from serving.batching.policy import BatchPolicy
from tests.support.gated import Answer

MS = 1_000_000


def waiting(*entries: tuple[int, int, int]) -> list[Pending]:
    """Requests given as (rows, steps, arrival in ms)."""
    return [Answer(0, rows, steps, decoded_ns=arrived * MS).pending for rows, steps, arrived in entries]


def take(queue: list[Pending], places: list[int]) -> Take:
    """All of the requests at these places."""
    return Take([whole(queue[place]) for place in places])


@pytest.mark.parametrize(
    ("why", "queue", "policy", "now_ms", "expected"),
    [
        ("nothing waits", [], BatchPolicy(), 0, Wait(None)),
        ("no delay: go with what is there", [(1, 5, 0)], BatchPolicy(), 0, [0]),
        ("all of one shape together", [(1, 5, 0), (2, 5, 0), (1, 5, 0)], BatchPolicy(), 0, [0, 1, 2]),
        ("another shape is passed over", [(1, 5, 0), (1, 7, 0), (1, 5, 0)], BatchPolicy(), 0, [0, 2]),
        ("the first in line decides the shape", [(1, 7, 0), (1, 5, 0)], BatchPolicy(), 0, [0]),
        ("no more rows than allowed", [(3, 5, 0), (2, 5, 0), (1, 5, 0)], BatchPolicy(max_rows=4), 0, [0]),
        ("exactly as many rows as allowed", [(3, 5, 0), (1, 5, 0), (1, 5, 0)], BatchPolicy(max_rows=4), 0, [0, 1]),
        ("without dynamic batching, one at a time", [(1, 5, 0), (1, 5, 0)], BatchPolicy(dynamic=False), 0, [0]),
        ("the delay gives company time to come", [(1, 5, 0)], BatchPolicy(max_delay_ns=9 * MS), 3, Wait(9 * MS)),
        ("the delay counts from the first arrival", [(1, 5, 2), (1, 5, 8)], BatchPolicy(max_delay_ns=9 * MS), 9, Wait(11 * MS)),
        ("the delay is over", [(1, 5, 0), (1, 5, 8)], BatchPolicy(max_delay_ns=9 * MS), 9, [0, 1]),
        ("full before the delay is over", [(2, 5, 0), (2, 5, 0)], BatchPolicy(max_rows=4, max_delay_ns=9 * MS), 0, [0, 1]),
        (
            "the next does not fit: waiting longer would help nobody",
            [(3, 5, 0), (2, 5, 0)], BatchPolicy(max_rows=4, max_delay_ns=9 * MS), 0, [0],
        ),
        (
            "a preferred size goes before the delay is over",
            [(1, 5, 0), (1, 5, 0), (1, 5, 0)], BatchPolicy(max_delay_ns=9 * MS, preferred_rows=(2,)), 0, [0, 1],
        ),
        (
            "the largest preferred size wins",
            [(1, 5, 0)] * 4, BatchPolicy(max_delay_ns=9 * MS, preferred_rows=(2, 4)), 0, [0, 1, 2, 3],
        ),
        (
            "no preferred size yet: wait",
            [(1, 5, 0)], BatchPolicy(max_delay_ns=9 * MS, preferred_rows=(2,)), 0, Wait(9 * MS),
        ),
    ],
)  # fmt: skip
def test_plan(
    why: str, queue: list[tuple[int, int, int]], policy: BatchPolicy, now_ms: int, expected: list[int] | Wait
) -> None:
    requests = waiting(*queue)
    decision = expected if isinstance(expected, Wait) else take(requests, expected)
    assert plan(requests, policy, now_ms * MS) == decision, why


def test_nobody_starves() -> None:
    """Whatever arrives later, the first in line is in the next batch."""
    queue = waiting((1, 9, 0), *[(1, 5, 0)] * 50)
    decision = plan(queue, BatchPolicy(), 0)
    assert isinstance(decision, Take)
    assert decision.pieces[0].pending is queue[0]
