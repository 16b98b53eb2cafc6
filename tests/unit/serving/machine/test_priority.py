"""Threads that go after others, and that nobody else is sent back with them."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from serving.machine import priority
from tests.support.threads import asked_from_elsewhere

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have an order of their own on Linux alone")


def place() -> int:
    """The nice of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.parametrize(("steps", "expected"), [(0, 0), (1, 1), (priority.LONG_CALLS, priority.LONG_CALLS), (100, 19)])
def test_a_thread_and_what_it_starts_go_later(steps: int, expected: int) -> None:
    def elsewhere() -> tuple[int, int]:
        priority.stand_behind(steps)
        return place(), asked_from_elsewhere(place)

    before = place()
    wanted = min(before + expected, priority.LOWEST)
    assert asked_from_elsewhere(elsewhere) == (wanted, wanted)
    assert place() == before


def test_a_second_time_goes_on_from_the_first() -> None:
    def elsewhere() -> int:
        priority.stand_behind(2)
        priority.stand_behind(3)
        return place()

    assert asked_from_elsewhere(elsewhere) == min(place() + 5, priority.LOWEST)


def test_what_is_made_behind_comes_back_and_so_does_what_is_raised() -> None:
    def fail() -> None:
        raise ValueError("not made")

    before = place()
    assert priority.started_behind(place, 3) == min(before + 3, priority.LOWEST)
    with pytest.raises(ValueError, match="not made"):
        priority.started_behind(fail)
    assert place() == before


def test_where_the_system_forbids_it_all_stay_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    assert priority.started_behind(place, 3) == place()
