"""Some thousand calls in every mood against the edge on nghttp2; `make soak-edge` makes a million."""

from __future__ import annotations

from tests.support.edge_soak import soak

CALLS = 12_000


def test_no_call_is_lost_and_none_answered_twice() -> None:
    ended = soak(CALLS, report=lambda line: None)
    assert ended.total() == CALLS
    assert {"answered", "cancelled", "failed", "lost by the client"} <= set(ended)
