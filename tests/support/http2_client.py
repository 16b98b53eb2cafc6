"""A client of HTTP/2 in memory, which is the library's own: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ngh2 import Configuration, Connection, Role

Headers = Sequence[tuple[bytes, bytes]]


def headers(path: bytes = b"/x", **more: bytes) -> Headers:
    """A call of gRPC; with more fields, `grpc_` for `grpc-`."""
    return (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *((_field(name), value) for name, value in more.items()),
    )


def _field(name: str) -> bytes:
    return (name.replace("_", "-") if name.startswith("grpc_") else name).encode()


class Http2Client:
    """`connection` is the library's; what it has to say is to be fetched by `said`, after every few calls.

    With `patient` its windows are opened only as the test asks for.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.connection = Connection(Role.CLIENT, Configuration(auto_window_update=not patient))
        self.connection.initiate_connection()

    def ask(self, data: bytes | None = None, *, end: bool = True, asked: Headers | None = None) -> int:
        """A new stream with this in it; with `data` of None it has headers alone."""
        stream = self.connection.send_request(asked or headers(), end_stream=data is None and end)
        if data is not None:
            self.connection.send_data(stream, data, end_stream=end)
        return stream

    def said(self) -> memoryview:
        """What is to be sent to the server."""
        return memoryview(b"".join(iter(self.connection.data_to_send, b"")))

    def hear(self, data: bytes) -> list[Any]:
        """What these bytes of the server mean, as the library's events."""
        self.connection.receive_data(data)
        events: list[Any] = self.connection.events()
        return events
