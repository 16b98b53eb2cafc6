"""What is learnt of calls: the numbers behind them are found, whatever else had the processor for a moment."""

from __future__ import annotations

import random

import pytest

from serving.batching.costs import BY_RULE, MOST_CELLS, Cost, Costs

TRUE = Cost(45_000, 900, 300, 1_900)
SIZES = [(rows, steps) for rows in (1, 8, 64) for steps in (5, 24, 96)]


def taught(cost: Cost = TRUE, times: int = 3) -> Costs:
    costs = Costs()
    for rows, steps in SIZES * times:
        costs.learn(rows, steps, int(cost.of(rows, steps)))
    costs.fit()
    return costs


def test_a_call_costs_for_itself_its_steps_its_rows_and_their_steps() -> None:
    assert Cost(1000, 100, 10, 1).of(rows=2, steps=3) == 1000 + 300 + 20 + 6


def test_by_rule_until_something_is_known() -> None:
    costs = Costs()
    assert costs.now == BY_RULE
    for _ in range(100):
        costs.learn(1, 24, 123_456)  # one size says nothing of others
    assert costs.now == BY_RULE


def test_the_numbers_are_found() -> None:
    assert taught().now == pytest.approx(TRUE, rel=1e-3)


def test_none_is_negative() -> None:
    """Where a call seems to cost less than nothing, noise was fitted."""
    costs = Costs()
    for rows, steps in SIZES:
        costs.learn(rows, steps, 1000 * rows * steps - 200 * (rows == 1))
    costs.fit()
    assert min(costs.now) >= 0
    assert costs.now.of(8, 24) == pytest.approx(8 * 24 * 1000, rel=0.1)


def test_what_changes_is_learnt_and_one_slow_call_is_not() -> None:
    costs = taught()
    costs.learn(8, 24, 10**12)
    costs.fit()
    assert costs.now.of(64, 96) < 2 * TRUE.of(64, 96)
    twice = Cost(*[2 * number for number in TRUE])
    draw = random.Random(0)
    for _ in range(2000):
        rows, steps = draw.choice(SIZES)
        costs.learn(rows, steps, int(twice.of(rows, steps)))
    assert costs.now == pytest.approx(twice, rel=0.1), "fitted on the way, not at the end alone"


def test_what_is_kept_is_bounded_and_can_be_gone_on_with() -> None:
    costs = Costs()
    for rows in range(1, 2000, 7):
        for steps in range(1, 2000, 13):
            costs.learn(rows, steps, int(TRUE.of(rows, steps)))
    assert len(costs.known()) <= MOST_CELLS
    again = Costs(costs.known())
    assert again.now == pytest.approx(TRUE, rel=0.05)


def test_a_call_of_empty_tensors_teaches_nothing() -> None:
    costs = Costs()
    costs.learn(2, 0, 1000)
    assert (costs.known(), costs.now) == ([], BY_RULE)
