"""Whoever speaks HTTP/1.1, or nothing that is known, to the port of gRPC is told so."""

from __future__ import annotations

from serving.edge.links import Closed, Link

_SENTENCE = (
    b"This port speaks gRPC, which is HTTP/2: use a gRPC client, or ask the port of --metrics-port for GET /metrics.\n"
)
_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    % len(_SENTENCE)
    + _SENTENCE
)


class PlainHttp:
    """See `serving.edge.links.Speaker`."""

    def __init__(self, link: Link) -> None:
        self._left = _ANSWER
        link.flush()

    def receive(self, data: memoryview) -> bool:
        raise Closed("not_http2")

    def output(self) -> bytes:
        left, self._left = self._left, b""
        return left

    def sent_all(self) -> None: ...

    def tick(self, now: int) -> None: ...

    def lost(self) -> None: ...
