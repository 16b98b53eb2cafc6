"""The cheapest way to cut lengths into batches, held against trying every way."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

import pytest

from serving.batching.costs import Cost
from serving.batching.lengths import cheapest

CALL, STEPS, PADDING = Cost(1e9, 0, 0, 1), Cost(10, 100, 0, 0), Cost(0, 0, 0, 1)


@pytest.mark.parametrize(
    ("why", "rows", "cost", "batches"),
    [
        ("one length", {5: 3}, PADDING, [(5, 5)]),
        ("calls that cost much: all in one", {1: 1, 50: 1, 900: 1}, CALL, [(1, 900)]),
        ("rows that cost nothing: all in one", {1: 1, 50: 1, 900: 1}, STEPS, [(1, 900)]),
        ("calls that cost nothing: each by itself", {1: 1, 50: 1, 900: 1}, PADDING, [(1, 1), (50, 50), (900, 900)]),
        ("near ones together", {20: 30, 22: 30, 2000: 1}, Cost(100, 10, 0, 1), [(20, 22), (2000, 2000)]),
        ("few short ones join many long ones", {19: 1, 20: 60}, Cost(100, 0, 0, 1), [(19, 20)]),
        ("many short ones do not pay for a long one", {19: 60, 40: 1}, Cost(100, 0, 0, 1), [(19, 19), (40, 40)]),
    ],
)
def test_cheapest(why: str, rows: Mapping[int, int], cost: Cost, batches: Sequence[tuple[int, int]]) -> None:
    assert [(each[0], each[-1]) for each in cheapest(rows, cost)] == batches, why
    assert sorted(rows) == [steps for each in cheapest(rows, cost) for steps in each]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_way_is_cheaper(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(20):
        rows = {draw.randint(1, draw.choice((6, 60, 600))): draw.randint(1, 9) for _ in range(draw.randint(1, 8))}
        cost = Cost(draw.choice((0, 1, 10, 1000)), draw.choice((0, 1, 10)), draw.choice((0, 1)), draw.choice((0, 1, 3)))
        best = min(time_of(cut, rows, cost) for cut in every_way(sorted(rows)))
        found = [(each[0], each[-1]) for each in cheapest(rows, cost)]
        assert time_of(found, rows, cost) == pytest.approx(best), (rows, cost)


def time_of(batches: Sequence[tuple[int, int]], rows: Mapping[int, int], cost: Cost) -> float:
    counts = [sum(count for steps, count in rows.items() if first <= steps <= last) for first, last in batches]
    assert sum(counts) == sum(rows.values()), "every request in one batch"
    return sum(cost.of(count, last) for count, (_, last) in zip(counts, batches, strict=True))


def every_way(lengths: Sequence[int]) -> list[list[tuple[int, int]]]:
    ways = []
    for ends in itertools.product((False, True), repeat=len(lengths) - 1):
        batches, begin = [], lengths[0]
        for steps, following, cut in zip(lengths, lengths[1:], ends, strict=False):
            if cut:
                batches.append((begin, steps))
                begin = following
        ways.append([*batches, (begin, lengths[-1])])
    return ways
