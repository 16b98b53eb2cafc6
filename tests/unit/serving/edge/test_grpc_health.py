"""A watch of `grpc.health.v1` by itself, and what a watcher that does not read does to others: nothing."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2

from serving.edge.grpc_health import HealthService
from serving.edge.health import HealthState

ANY = health_pb2.HealthCheckRequest()
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Watched:
    """As much of gRPC's context as a watch uses."""

    def __init__(self, *, gone: bool = False) -> None:
        self.callbacks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._gone = gone

    def add_callback(self, action: Callable[[], None]) -> bool:
        if not self._gone:
            self.callbacks.put(action)
        return not self._gone


def watch(state: HealthState, context: Watched | None = None) -> Any:
    """What is sent to a watcher; nothing is sent on while he does not ask for it."""
    return HealthService(state).watch(ANY, cast(grpc.ServicerContext, context or Watched()))


def test_a_watcher_that_does_not_read_holds_up_nobody_and_learns_the_last_state() -> None:
    state = HealthState()
    slow, quick = watch(state), watch(state)
    assert next(slow).status == next(quick).status == NOT_SERVING
    for serving in (True, False, True):
        state.set(serving)
        assert next(quick).status == (SERVING if serving else NOT_SERVING)
    assert next(slow).status == SERVING


def test_a_change_that_is_taken_back_before_it_is_sent_is_not_sent() -> None:
    state = HealthState()
    watcher = watch(state)
    assert next(watcher).status == NOT_SERVING
    state.set(True)
    state.set(False)
    state.leave()
    assert list(watcher) == []


def test_a_watch_ends_when_its_client_has_gone() -> None:
    state, context = HealthState(), Watched()
    watcher = watch(state, context)
    assert next(watcher).status == NOT_SERVING
    context.callbacks.get_nowait()()
    state.set(True)
    assert list(watcher) == []


def test_a_watch_whose_client_has_gone_before_it_began_sends_nothing() -> None:
    assert list(watch(HealthState(), Watched(gone=True))) == []
