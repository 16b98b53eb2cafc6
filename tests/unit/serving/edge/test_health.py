"""Readiness as others are told of it: after every change, until they no longer want to know."""

from __future__ import annotations

import pytest

from serving.edge.health import HealthState


def test_it_begins_as_not_serving() -> None:
    state = HealthState()
    assert (state.serving, state.leaving) == (False, False)


def test_whoever_has_subscribed_is_called_after_every_change_and_looks_for_himself() -> None:
    state, seen = HealthState(), list[bool]()
    state.subscribe(lambda: seen.append(state.serving))
    state.set(True)
    state.set(False)
    state.set(True)
    assert seen == [True, False, True]


def test_nobody_is_called_after_he_has_unsubscribed_and_others_still_are() -> None:
    state, first, second = HealthState(), list[bool](), list[bool]()
    unsubscribe = state.subscribe(lambda: first.append(state.serving))
    state.subscribe(lambda: second.append(state.serving))
    state.set(True)
    unsubscribe()
    unsubscribe()
    state.set(False)
    assert (first, second) == ([True], [True, False])


def test_who_is_called_may_unsubscribe_and_ask() -> None:
    """He is called outside the lock."""
    state, seen = HealthState(), list[bool]()

    def once() -> None:
        unsubscribe()
        seen.append(state.serving)

    unsubscribe = state.subscribe(once)
    state.set(True)
    state.set(False)
    assert seen == [True]


@pytest.mark.parametrize("serving", [True, False])
def test_a_server_that_leaves_never_serves_again(serving: bool) -> None:
    state, told = HealthState(), list[bool]()
    state.set(serving)
    state.subscribe(lambda: told.append(state.leaving))
    state.leave()
    state.set(True)
    assert (state.serving, state.leaving) == (False, True)
    assert told == [True, True]
