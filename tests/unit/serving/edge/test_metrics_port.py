"""The metrics port: metrics at /metrics, and no answer that a misdirected probe could take for "ready"."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from serving.edge.metrics_port import MetricsPort
from serving.errors import StartupError


@pytest.fixture(scope="module")
def port() -> Iterator[MetricsPort]:
    registry = CollectorRegistry()
    Gauge("answer", "of everything", registry=registry).set(42)
    made = MetricsPort("127.0.0.1", 0, registry)
    yield made
    made.close()


def asked(port: MetricsPort, method: str, path: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port.port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics?name%5B%5D=answer"])
def test_metrics_are_at_their_path(port: MetricsPort, path: str) -> None:
    status, text, headers = asked(port, "GET", path)
    assert (status, headers.get_content_type()) == (200, "text/plain")
    assert "answer 42.0" in text


@pytest.mark.parametrize("path", ["/", "/v2/health/ready", "/v2/health/live", "/metricsx", "/metrics/more", "/%00"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_other_path_is_here(port: MetricsPort, method: str, path: str) -> None:
    status, text, _ = asked(port, method, path)
    assert (status, text) == (404, "metrics are at /metrics; nothing else is here\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_metrics_are_only_read(port: MetricsPort, method: str) -> None:
    status, text, headers = asked(port, method, "/metrics")
    assert (status, text, headers["Allow"]) == (405, "/metrics answers GET alone\n", "GET, HEAD")


def test_a_head_has_no_body(port: MetricsPort) -> None:
    assert asked(port, "HEAD", "/metrics")[:2] == (200, "")


def test_a_busy_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(StartupError, match="cannot be bound"):
        MetricsPort("127.0.0.1", busy.getsockname()[1], CollectorRegistry())
