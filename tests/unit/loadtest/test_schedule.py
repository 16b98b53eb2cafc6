"""Levels and times of arrival."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from loadtest.errors import UsageError
from loadtest.schedule import intended_times, parse_levels


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("100", (100,)),
        ("1,8,32", (1, 8, 32)),
        ("100:400:100", (100, 200, 300, 400)),
        ("100:350:100", (100, 200, 300)),
        ("0.1:0.3:0.1", (0.1, 0.2, 0.3)),
        ("5,10:20:10", (5, 10, 20)),
        ("7:7:1", (7,)),
    ],
)
def test_levels(text: str, levels: tuple[float, ...]) -> None:
    assert parse_levels(text) == pytest.approx(levels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds ''"),
        ("a", "holds 'a'"),
        ("0", "positive numbers"),
        ("-3", "positive numbers"),
        ("inf", "positive numbers"),
        ("nan", "positive numbers"),
        ("1:2", "start:end:step"),
        ("1:2:3:4", "start:end:step"),
        ("9:1:1", "ends below its start"),
        ("1:1000000:1", "has 1000000 levels; at most 1000"),
    ],
)
def test_levels_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_levels(text)


def test_concurrency_is_whole() -> None:
    with pytest.raises(UsageError, match="positive whole numbers"):
        parse_levels("1,2.5", whole=True)


def test_constant_arrivals_are_even_over_any_number_of_them() -> None:
    times = list(itertools.islice(intended_times(200, "constant", 0), 5000))
    assert times[:3] == [0, 5_000_000, 10_000_000]
    assert times[4999] == 4999 * 5_000_000


def test_poisson_arrivals_are_those_of_their_seed() -> None:
    first, again, other = (list(itertools.islice(intended_times(200, "poisson", s), 5000)) for s in (1, 1, 2))
    assert first == again != other


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    times = np.array(list(itertools.islice(intended_times(200, "poisson", 3), 20_000)))
    gaps = np.diff(times) / 1e9
    assert (gaps >= 0).all()
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.05)
