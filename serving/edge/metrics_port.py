"""The metrics port: `GET /metrics`, and nothing else.

Any other path is 404, so that a health probe that has been pointed at this port fails at once instead of seeing a server
that is ready for ever.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from serving.errors import StartupError

PATH = "/metrics"

StartResponse = Callable[..., Any]


def answering(metrics: Callable[[dict[str, Any], StartResponse], Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """The application of the port: `metrics` for GET and HEAD of `/metrics`, 404 for other paths, 405 for other methods."""

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").rstrip("/") != PATH:
            return _refused(start_response, "404 Not Found", f"metrics are at {PATH}; nothing else is here\n")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            told = f"{PATH} answers GET alone\n"
            return _refused(start_response, "405 Method Not Allowed", told, ("Allow", "GET, HEAD"))
        body = metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    return answer


def _refused(start_response: StartResponse, status: str, told: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    body = told.encode()
    start_response(
        status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *headers]
    )
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ServerOfSix(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Scrapes are in no log."""


class MetricsPort:
    """Answers scrapes of `registry` until it is closed. Raises `StartupError` where the address cannot be bound."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._host = host
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            kind = _ServerOfSix if family == socket.AF_INET6 else _Server
            self._server = make_server(host, port, answering(make_wsgi_app(registry)), kind, _Handler)
        except OSError as error:
            raise StartupError(
                f"the metrics address {host}:{port} cannot be bound: {error.strerror}; "
                "choose others with --host and --metrics-port"
            ) from error
        self.port: int = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Its loop looks up twice a second, or when somebody comes; so somebody does."""
        ending = threading.Thread(target=self._server.shutdown, daemon=True)
        ending.start()
        with contextlib.suppress(OSError), socket.create_connection((self._host, self.port), timeout=1):
            ending.join()
        ending.join()
        self._server.server_close()
