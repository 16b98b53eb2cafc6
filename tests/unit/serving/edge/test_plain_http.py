"""A browser, or whatever else has come to the wrong port, is told which one it is, and let go."""

from __future__ import annotations

import http.client
import io
from typing import cast

import pytest

from serving.edge.links import Closed, Link
from serving.edge.plain_http import PlainHttp


class Flushed:
    """A link that counts how often there was something to send."""

    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


class Received:
    """What `http.client` reads of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def test_the_answer_is_http_and_says_what_to_do() -> None:
    link = Flushed()
    speaker = PlainHttp(cast(Link, link))
    assert link.flushes == 1
    answer = http.client.HTTPResponse(Received(speaker.output()))  # type: ignore[arg-type]
    answer.begin()
    assert (answer.status, answer.getheader("connection")) == (400, "close")
    assert "use a gRPC client, or ask the port of --metrics-port" in answer.read().decode()
    assert speaker.output() == b"", "it is told once"


def test_it_is_closed_whatever_it_says() -> None:
    with pytest.raises(Closed, match="not_http2"):
        PlainHttp(cast(Link, Flushed())).receive(memoryview(b"GET / HTTP/1.1\r\n"))
