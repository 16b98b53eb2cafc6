"""The decision as a table: what waits, what the operator wants, what is taken."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from serving.batching.costs import Cost
from serving.batching.pending import Pending, whole
from serving.batching.plan import MOST_LOOKED_AT, Take, Wait, looked_at, plan
from serving.batching.policy import BatchPolicy
from serving.batching.rows import padding_ratio
from tests.support.gated import Answer

MS = 1_000_000
ANY_LENGTH, OTHER = (b"", (-1,)), (b"", (-1, 2))  # keys of requests whose lengths may be unequal


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
        (
            "larger than every preferred size: no use to wait",
            [(7, 5, 0)], BatchPolicy(max_delay_ns=9 * MS, preferred_rows=(2, 6)), 0, [0],
        ),
        (
            "between two preferred sizes there may still come enough",
            [(3, 5, 0)], BatchPolicy(max_delay_ns=9 * MS, preferred_rows=(2, 6)), 0, Wait(9 * MS),
        ),
        (
            "what is full goes while the first in line waits for company",
            [(1, 7, 0), (2, 5, 1), (2, 5, 1)], BatchPolicy(max_rows=4, max_delay_ns=9 * MS), 1, [1, 2],
        ),
        (
            "whose delay is over goes first",
            [(1, 7, 0), (2, 5, 1), (2, 5, 1)], BatchPolicy(max_rows=4, max_delay_ns=9 * MS), 9, [0],
        ),
        (
            "nobody is ready: until the first of all delays is over",
            [(1, 7, 3), (1, 5, 1)], BatchPolicy(max_delay_ns=9 * MS), 3, Wait(10 * MS),
        ),
    ],
)  # fmt: skip
def test_plan(
    why: str, queue: list[tuple[int, int, int]], policy: BatchPolicy, now_ms: int, expected: list[int] | Wait
) -> None:
    requests = waiting(*queue)
    decision = expected if isinstance(expected, Wait) else take(requests, expected)
    assert plan(requests, policy, now_ms * MS) == decision, why


# A call is as dear as 20 steps of a row; and one that costs nothing.
CHEAP_ROWS, CHEAP_CALLS = Cost(20, 0, 0, 1), Cost(0, 0, 0, 1)


@pytest.mark.parametrize(
    ("why", "queue", "policy", "cost", "expected"),
    [
        ("near lengths together", [(1, 5, 0), (1, 7, 0), (1, 5, 0)], BatchPolicy(), CHEAP_ROWS, [0, 1, 2]),
        ("what is far waits", [(1, 20, 0), (1, 2000, 0), (1, 19, 0)], BatchPolicy(), CHEAP_ROWS, [0, 2]),
        ("the first in line goes, whatever it is", [(1, 2000, 0), *[(1, 20, 0)] * 9], BatchPolicy(), CHEAP_ROWS, [0]),
        ("calls for nothing: equal lengths alone", [(1, 5, 0), (1, 7, 0), (1, 5, 0)], BatchPolicy(), CHEAP_CALLS, [0, 2]),
        (
            "too many rows: batches are filled from the longest on, and the first is in the second",
            [(2, 5, 0), (1, 6, 0), (2, 7, 0), (1, 8, 0)], BatchPolicy(max_rows=3), CHEAP_ROWS, [0, 1],
        ),
        (
            "no more padding than allowed: 3 of 20 steps",
            [(1, 10, 0), (1, 7, 0), (1, 3, 0)], BatchPolicy(max_padding_ratio=0.15), CHEAP_ROWS, [0, 1],
        ),
        (
            "no more padding than allowed: the longer ones wait where the first is the shortest",
            [(1, 3, 0), (1, 7, 0), (1, 3, 0)], BatchPolicy(max_padding_ratio=0.15), CHEAP_ROWS, [0, 2],
        ),
        ("no padding allowed", [(1, 5, 0), (1, 7, 0), (1, 5, 0)], BatchPolicy(max_padding_ratio=0), CHEAP_ROWS, [0, 2]),
    ],
)  # fmt: skip
def test_plan_of_unequal_lengths(
    why: str, queue: list[tuple[int, int, int]], policy: BatchPolicy, cost: Cost, expected: list[int]
) -> None:
    requests = [Answer(0, rows, steps, decoded_ns=at, key=ANY_LENGTH).pending for rows, steps, at in queue]
    assert plan(requests, policy, 0, cost) == take(requests, expected), why


@pytest.mark.parametrize(
    ("why", "ranked", "expected"),
    [
        ("what is served later joins", [(2, 20), (2, 18), (4, 19), (4, 18)], [0, 1, 2, 3]),
        ("what is served later makes no batch longer", [(2, 20), (2, 18), (4, 21)], [0, 1]),
        ("nor where it is all there is beside the first", [(2, 20), (4, 21), (4, 20), (5, 19)], [0, 2, 3]),
    ],
)
def test_who_is_served_later_makes_nobody_wait_longer(
    why: str, ranked: list[tuple[int, int]], expected: list[int]
) -> None:
    requests = [Answer(0, 1, steps, decoded_ns=0, key=ANY_LENGTH).pending for _, steps in ranked]
    for pending, (rank, _) in zip(requests, ranked, strict=True):
        pending.rank = rank
    assert plan(requests, BatchPolicy(), 0, Cost(1000, 0, 0, 1)) == take(requests, expected), why


def test_who_is_served_later_makes_nobody_much_slower() -> None:
    """A row more may cost as much as the first; where it costs a tenth, two may join."""
    requests = [Answer(0, 1, 20, decoded_ns=0, key=ANY_LENGTH).pending for _ in range(5)]
    for pending in requests[1:]:
        pending.rank = 4
    assert plan(requests, BatchPolicy(), 0, CHEAP_CALLS) == take(requests, [0])
    assert plan(requests, BatchPolicy(), 0, Cost(180, 0, 0, 1)) == take(requests, [0, 1, 2])


@pytest.mark.parametrize(
    ("why", "later", "expected"),
    [
        ("rows that would make it too slow end it", [(3, 20), (1, 20)], [0]),
        ("but not those of a request that is too long to join", [(3, 21), (1, 20)], [0, 2]),
        ("nor of one that would bring too much padding", [(3, 9), (1, 20), (1, 20), (1, 20)], [0, 2, 3]),
        ("nor of one that has no room among the rows", [(9, 21), (2, 20)], [0, 2]),
    ],
)
def test_only_who_can_join_counts_for_how_slow_a_batch_becomes(
    why: str, later: list[tuple[int, int]], expected: list[int]
) -> None:
    requests = [Answer(0, rows, steps, decoded_ns=0, key=ANY_LENGTH).pending for rows, steps in [(1, 20), *later]]
    for pending in requests[1:]:
        pending.rank = 4
    policy = BatchPolicy(max_rows=9, max_padding_ratio=0.5)
    assert plan(requests, policy, 0, Cost(180, 0, 0, 1)) == take(requests, expected), why  # 25 % more is two rows


def test_who_is_served_later_brings_no_more_padding_than_allowed() -> None:
    requests = [Answer(0, 1, steps, decoded_ns=0, key=ANY_LENGTH).pending for steps in (1000, 900, *[100] * 62, 800)]
    for pending in requests[2:]:
        pending.rank = 4
    dear_calls = Cost(1e9, 0, 0, 1)
    assert plan(requests, BatchPolicy(max_padding_ratio=0.5), 0, dear_calls) == take(requests, [0, 1, 64])


def test_a_preferred_size_is_not_reached_by_padding() -> None:
    requests = [Answer(0, 1, steps, decoded_ns=0, key=ANY_LENGTH).pending for steps in (5, 100, 100, 100)]
    policy = BatchPolicy(max_delay_ns=1, preferred_rows=(2,), max_padding_ratio=0.3)
    assert plan(requests, policy, 1, Cost(1e9, 0, 0, 1)) == take(requests, [0, 1, 2, 3]), (
        "24 % of all, 48 % of the first two"
    )


@pytest.mark.parametrize(
    ("why", "lengths", "taken"),
    [
        ("a full batch of one length, beyond what is looked at", [7] * 2000, 1000),
        ("of unequal lengths no more than is looked at", [7, 8] * 1000, MOST_LOOKED_AT),
        ("another length ends what goes beyond", [*[7] * 600, *[8] * 1400], 600),
    ],
)
def test_large_batches(why: str, lengths: list[int], taken: int) -> None:
    requests = [Answer(0, 1, steps, decoded_ns=0, key=ANY_LENGTH).pending for steps in lengths]
    assert plan(requests, BatchPolicy(max_rows=1000), 0, Cost(1e9, 0, 0, 1)) == take(requests, list(range(taken))), why


def test_a_batch_waits_no_longer_than_whoever_of_it_has_come_first() -> None:
    """Who is served first need not have waited longest."""
    requests = waiting((1, 5, 8), (1, 5, 2))
    assert plan(requests, BatchPolicy(max_delay_ns=9 * MS), 10 * MS) == Wait(11 * MS)
    assert plan(requests, BatchPolicy(max_delay_ns=9 * MS), 11 * MS) == take(requests, [0, 1])


@pytest.mark.parametrize("seed", range(30))
def test_whatever_waits_the_plan_holds_to_its_limits(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(30):
        policy = BatchPolicy(
            max_rows=draw.choice((1, 4, 16)),
            max_delay_ns=draw.choice((0, 5)),
            preferred_rows=draw.choice(((), (2, 3))),
            max_padding_ratio=draw.choice((0.0, 0.2, 1.0)),
        )
        requests = [
            Answer(0, draw.randint(1, min(3, policy.max_rows)), draw.randint(1, 40), decoded_ns=draw.randint(0, 9),
                   key=draw.choice((ANY_LENGTH, OTHER))).pending
            for _ in range(draw.randint(1, 300))
        ]  # fmt: skip
        cost = Cost(*[draw.choice((0, 1, 100)) for _ in range(4)])
        decision = plan(requests, policy, 9, cost)
        if isinstance(decision, Wait):
            assert policy.max_delay_ns
            assert decision.until_ns is not None
            assert decision.until_ns > 9
            continue
        chosen = [piece.pending for piece in decision.pieces]
        assert [each for each in requests if each in chosen] == chosen, "in the order of the queue, each once"
        assert len({each.key for each in chosen}) == 1
        assert sum(each.rows for each in chosen) <= policy.max_rows
        assert padding_ratio(decision.pieces) <= policy.max_padding_ratio + 1e-9
        overdue = not policy.max_delay_ns or requests[0].timeline.decoded + policy.max_delay_ns <= 9
        assert not overdue or chosen[0] is requests[0] or requests[0] in chosen


def test_only_the_beginning_of_a_long_queue_is_looked_at() -> None:
    """So that a plan costs the same however many wait."""

    class Long(list[Pending]):
        """Gives its beginning, and fails whoever goes through all of it."""

        def __iter__(self) -> Iterator[Pending]:
            raise AssertionError("all of it was looked at")

        def __getitem__(self, place: Any) -> Any:
            assert (place.stop if isinstance(place, slice) else place) <= looked_at(policy)
            return super().__getitem__(place)

    policy = BatchPolicy(max_rows=32, max_delay_ns=1, max_padding_ratio=0)
    requests = Long(Answer(0, 1, 1 + n % 256, decoded_ns=0, key=ANY_LENGTH).pending for n in range(5000))
    assert isinstance(plan(requests, policy, 0, CHEAP_ROWS), Wait), "every batch that there is was looked at"
    assert looked_at(policy) == 128


def test_nobody_starves() -> None:
    """Whatever arrives later, the first in line is in the next batch."""
    queue = waiting((1, 9, 0), *[(1, 5, 0)] * 50)
    decision = plan(queue, BatchPolicy(), 0)
    assert isinstance(decision, Take)
    assert decision.pieces[0].pending is queue[0]
