"""`grpc.health.v1` for orchestrators and load balancers: SERVING exactly while ServerReady says so, for every name.

Watchers are held by callbacks, not by threads, so that any number of idle ones costs nothing; they are let go when the
server leaves, since a stream that stays open would hold the shutdown up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Send = Callable[[health_pb2.HealthCheckResponse | None], None]


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Check and Watch; the requested service name is ignored, since all models share one readiness."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serving = False
        self._leaving = False
        self._watchers: set[Send] = set()

    def set(self, serving: bool) -> None:
        """Tells every watcher when the answer has changed."""
        with self._lock:
            if serving == self._serving or self._leaving:
                return
            self._serving = serving
            for send in self._watchers:
                send(self._response())

    def leave(self) -> None:
        """NOT_SERVING for good; every watcher is told so and its stream ended."""
        with self._lock:
            was_serving, self._serving, self._leaving = self._serving, False, True
            for send in self._watchers:
                if was_serving:
                    send(self._response())
                send(None)
            self._watchers.clear()

    def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Any:
        """The answer now."""
        return self._response()

    def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext, send: Send) -> None:
        """The answer now and whenever it changes, until the client or the server leaves."""
        with self._lock:
            send(self._response())
            if self._leaving:
                send(None)
                return
            self._watchers.add(send)
        if not context.add_callback(lambda: self._forget(send)):
            self._forget(send)

    # grpc.server then passes `send` instead of waiting for an iterator; grpcio-health-checking relies on it too.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]

    def _forget(self, send: Send) -> None:
        with self._lock:
            if send in self._watchers:
                self._watchers.remove(send)
                send(None)

    def _response(self) -> Any:
        serving = health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse(
            status=serving if self._serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
