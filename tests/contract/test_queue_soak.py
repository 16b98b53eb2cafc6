"""A great many requests of every length and level, some of whose clients go: see `tests.support.queue_soak`."""

from __future__ import annotations

import pytest

from tests.support.queue_soak import soak


@pytest.mark.parametrize("requests", [20_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_each_is_answered_once_and_nothing_is_left_over(requests: int) -> None:
    codes, _, _ = soak(requests)
    assert codes.total() == requests
    assert codes.keys() >= {"OK", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE", "INTERNAL"}, "a mood was never had"
