"""The server's own account of the time between two readings."""

from __future__ import annotations

import pytest

from loadtest.target import STAGES, Account

BEFORE = Account(answered=10, stage_ns=(1_000, 2_000, 3_000, 4_000))


def test_means_are_of_what_was_answered_in_between() -> None:
    after = Account(answered=14, stage_ns=(9_000, 2_000, 4_000_003_000, 4_400))
    means = after.means_since(BEFORE)
    assert means is not None
    assert list(means) == list(STAGES)
    assert list(means.values()) == pytest.approx([2e-6, 0, 1, 1e-7])


def test_nothing_answered_has_no_mean() -> None:
    assert BEFORE.means_since(BEFORE) is None
    restarted = Account(answered=0, stage_ns=(0, 0, 0, 0))
    assert restarted.means_since(BEFORE) is None
