"""`grpc.health.v1` over the public `grpc.server`, for orchestrators and load balancers.

Sending on a gRPC stream may block for as long as its client pleases, so every watcher has a thread, and nothing is sent
from the thread that has made a change. A watch ends when the server leaves, since a stream that stays open would hold the
shutdown up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from serving.edge.health import HealthState


class HealthService:
    """Check and Watch; the requested service name is ignored, since all models share one readiness."""

    def __init__(self, state: HealthState) -> None:
        self._state = state

    def check(self, _request: health_pb2.HealthCheckRequest, _context: grpc.ServicerContext) -> Any:
        """The answer now."""
        return _response(self._state.serving)

    def watch(self, _request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        """The answer now and whenever it has changed, until the client or the server leaves."""
        changed = threading.Condition()
        left = threading.Event()

        def look() -> None:
            with changed:
                changed.notify_all()

        def leave() -> None:
            left.set()
            look()

        if not context.add_callback(leave):
            return
        unsubscribe = self._state.subscribe(look)
        try:
            told: bool | None = None
            while not left.is_set():
                serving, leaving = self._state.serving, self._state.leaving
                if serving != told:
                    yield _response(serving)
                    told = serving
                elif leaving:
                    return
                else:
                    with changed:
                        changed.wait_for(lambda: left.is_set() or self._state.leaving or self._state.serving != told)  # noqa: B023
        finally:
            unsubscribe()


def _response(serving: bool) -> Any:
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    return health_pb2.HealthCheckResponse(status=status)
