"""`grpc.health.v1` for orchestrators and load balancers: SERVING exactly while ServerReady says so, for every name.

Sending on a gRPC stream may block for as long as its client pleases, so nothing is ever sent while the lock is held.
Every watcher has a thread, and ends when the server leaves, since a stream that stays open would hold the shutdown up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2


class HealthService:
    """Check and Watch; the requested service name is ignored, since all models share one readiness."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the two below
        self._serving = False
        self._leaving = False

    def set(self, serving: bool) -> None:
        """Whether the server is ready; watchers are told when that has changed."""
        with self._changed:
            self._serving = serving and not self._leaving
            self._changed.notify_all()

    def leave(self) -> None:
        """NOT_SERVING for good; every watcher is told so and its stream ended."""
        with self._changed:
            self._serving, self._leaving = False, True
            self._changed.notify_all()

    def check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Any:
        """The answer now."""
        return _response(self._serving)

    def watch(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        """The answer now and whenever it has changed, until the client or the server leaves."""
        left = threading.Event()

        def leave() -> None:
            with self._changed:
                left.set()
                self._changed.notify_all()

        if not context.add_callback(leave):
            return
        told: bool | None = None
        while True:
            with self._changed:
                while not (self._leaving or self._serving != told or left.is_set()):
                    self._changed.wait()
                serving, leaving = self._serving, self._leaving
            if left.is_set():
                return
            if serving != told:
                yield _response(serving)
                told = serving
            if leaving:
                return


def _response(serving: bool) -> Any:
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    return health_pb2.HealthCheckResponse(status=status)
