"""Shares are dealt, not drawn."""

from __future__ import annotations

import threading

import pytest

from serving.lifecycle.dealer import Dealer


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.99, 1.0])
def test_shares_are_dealt_not_drawn(share: float) -> None:
    """Any hundred in a row hold the share of them, give or take the one that is under way."""
    deal = Dealer(share)
    dealt = [deal() for _ in range(10_000)]
    assert sum(dealt) == pytest.approx(10_000 * share, abs=1 - 1e-6)
    for start in range(0, 9_900, 37):
        assert abs(sum(dealt[start : start + 100]) - 100 * share) < 1


def test_shares_are_exact_from_many_threads() -> None:
    deal, counts = Dealer(0.25), [0] * 8
    begin = threading.Barrier(len(counts))

    def ask(place: int) -> None:
        begin.wait()
        counts[place] = sum(deal() for _ in range(1000))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 2000
