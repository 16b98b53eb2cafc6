"""What gRPC says of the time that is left, as a deadline on our clock."""

from __future__ import annotations

from typing import cast

import grpc
import pytest

from serving.edge.deadline import deadline_ns


class Remaining:
    """As much of gRPC's context as says how long its client waits."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float | None:
        return self._seconds


@pytest.mark.parametrize(
    ("remaining", "deadline"),
    [(0, 7), (0.5, 500_000_007), (86_400, 86_400_000_000_007), (None, None), (float("inf"), None), (9.2e18, None)],
)
def test_a_deadline_that_nobody_has_set_is_none(remaining: float | None, deadline: int | None) -> None:
    assert deadline_ns(cast(grpc.ServicerContext, Remaining(remaining)), 7) == deadline
