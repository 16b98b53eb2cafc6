"""HTTP/2 by nghttp2: the only file that knows the library.

`ngh2` is nghttp2 without sockets: bytes go in, events come out. It is young (one maintainer, interfaces may change), so
what is used of it is kept here. What would take its place is told in docs/adr/0015.
"""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import ngh2
from ngh2 import Configuration, ErrorCode, Role, Setting
from ngh2.events import (
    ConnectionClosed,
    DataReceived,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

Headers = tuple[tuple[bytes, bytes], ...]

STREAMS = 1024  # of one connection at a time; clients keep the calls beyond that until others are answered
WINDOW = 256 * 1024  # bytes of an unfinished message that a client may send before anybody has asked for more
LARGEST_WINDOW = 2**31 - 1
CONNECTION_WINDOW = LARGEST_WINDOW  # what bounds it is what each stream may send, and what is counted as unfinished
MOST_UNFINISHED = 2**30 - 2**16  # of a connection: half of a window, which is given back when half of it has been used
HEADER_BYTES = 64 * 1024  # beyond this the library ends the connection; a call is refused with far less
OUTPUT_BYTES = 1 << 20  # handed to the socket at once
# Resets are counted by whoever knows the calls: the library cannot tell a deadline that has passed from an attack.
UNBOUNDED = (2**31, 2**31)

_CONFIGURATION = Configuration(
    auto_window_update=False,
    stream_reset_rate_limit=UNBOUNDED,
    max_inbound_header_list_size=HEADER_BYTES,
)
_SETTINGS = {
    Setting.MAX_CONCURRENT_STREAMS: STREAMS,
    Setting.INITIAL_WINDOW_SIZE: WINDOW,
    Setting.MAX_HEADER_LIST_SIZE: HEADER_BYTES // 4,
}

NO_ERROR, ENHANCE_YOUR_CALM = ErrorCode.NO_ERROR, ErrorCode.ENHANCE_YOUR_CALM


Broken = ngh2.NGH2Error  # the peer has broken a rule of HTTP/2 or a limit of the library, or the connection is over


class Listener(Protocol):
    """Who is told of what comes. `end` says that nothing more comes on the stream."""

    def requested(self, stream: int, headers: Headers, end: bool) -> None: ...

    def data(self, stream: int, data: bytes, end: bool) -> None: ...

    def closed(self, stream: int, reset: bool) -> None: ...

    def pinged(self) -> None: ...

    def ping_answered(self) -> None: ...

    def settings_changed(self) -> None: ...

    def over(self, code: int) -> None: ...


class Http2:
    """The server's end of one connection. Used by one thread.

    `receive` and `output` raise `Broken`; then it is to be closed. `begin`, `send`, `finish` and `answer` raise
    `Broken` where the stream is over, of which `closed` tells, or the connection; everything else does nothing then.
    """

    __slots__ = ("_connection", "_last_words", "_listener", "_resets")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._last_words: bytes | None = None  # instead of what the library had to send
        self._resets: set[int] = set()
        self._connection = ngh2.Connection(Role.SERVER, _CONFIGURATION)
        self._connection.initiate_connection(_SETTINGS)
        self._connection.set_local_window_size(CONNECTION_WINDOW)

    def receive(self, data: memoryview) -> int:
        """Takes bytes and tells of what they mean; the number of events."""
        try:
            self._connection.receive_data(data)
        except ngh2.DenialOfServiceError as error:
            self._last_words = _goaway(ENHANCE_YOUR_CALM, str(error).encode())  # the library says nothing any more
            raise
        return self.tell()

    def tell(self) -> int:
        """Tells of what has happened by receiving or by sending: a stream is closed when its last frame has gone."""
        events: list[Any] = self._connection.events()
        listener = self._listener
        for event in events:
            kind = type(event)
            if kind is DataReceived:
                listener.data(event.stream_id, event.data, event.end_stream)
            elif kind is RequestReceived:
                listener.requested(event.stream_id, event.headers, event.end_stream)
            elif kind is StreamClosed:
                if self._resets and event.stream_id in self._resets:
                    self._resets.discard(event.stream_id)
                    listener.closed(event.stream_id, True)
                else:
                    listener.closed(event.stream_id, False)
            elif kind is StreamReset:
                self._resets.add(event.stream_id)
            elif kind is TrailersReceived:
                listener.data(event.stream_id, b"", True)
            elif kind is PingReceived:
                listener.pinged()
            elif kind is PingAcknowledged:
                listener.ping_answered()
            elif kind is SettingsReceived:
                listener.settings_changed()
            elif kind is ConnectionClosed:
                listener.over(event.error_code)
        return len(events)

    def output(self) -> bytes:
        """What is to be sent now, about `OUTPUT_BYTES` at most."""
        if self._last_words is not None:
            words, self._last_words = self._last_words, b""
            return words
        connection = self._connection
        if not connection.want_write:
            return b""
        return connection.data_to_send(OUTPUT_BYTES if connection.queued_body_size() > OUTPUT_BYTES else None)

    @property
    def unsent(self) -> int:
        """Bytes of answers that have not been handed to the socket."""
        return self._connection.queued_body_size()

    def unsent_of(self, stream: int) -> int:
        """Likewise of one stream."""
        return self._connection.queued_body_size(stream)

    def begin(self, stream: int, headers: Headers) -> None:
        """The headers of an answer, whose messages come later."""
        self._connection.send_response(stream, headers)

    def send(self, stream: int, data: bytes) -> None:
        """A message of an answer that has begun."""
        self._connection.send_data(stream, data)

    def finish(self, stream: int, trailers: Headers) -> None:
        """The end of an answer that has begun."""
        self._connection.send_trailers(stream, trailers)

    def answer(self, stream: int, headers: Headers, data: bytes, trailers: Headers) -> None:
        """An answer of one message."""
        connection = self._connection
        connection.send_response(stream, headers)
        connection.send_data(stream, data)
        connection.send_trailers(stream, trailers)

    def refuse(self, stream: int, headers: Headers) -> None:
        """An answer of headers alone."""
        with contextlib.suppress(Broken):
            self._connection.send_response(stream, headers, end_stream=True)

    def reset(self, stream: int, code: int) -> None:
        """Ends a stream at once; what has not been sent of it is dropped."""
        with contextlib.suppress(Broken):
            self._connection.reset_stream(stream, code)

    def take(self, stream: int, count: int) -> None:
        """So many bytes of a stream have been used, and the client may send as many more."""
        try:
            self._connection.acknowledge_received_data(count, stream)
        except Broken:
            return

    def widen(self, stream: int, window: int) -> None:
        """The client may send so many bytes on this stream before any of them is taken."""
        with contextlib.suppress(Broken):
            self._connection.set_local_window_size(min(window, LARGEST_WINDOW), stream_id=stream)

    def ping(self) -> None:
        """Asks the client whether it is there."""
        with contextlib.suppress(Broken):
            self._connection.ping()

    def announce_end(self) -> None:
        """The client is to open no more streams; those that are on the way are taken."""
        with contextlib.suppress(Broken):
            self._connection.send_shutdown_notice()

    def forget(self) -> None:
        """Nobody listens any more; nothing may be called after it."""
        del self._listener

    def end(self, code: int = NO_ERROR, why: bytes = b"") -> None:
        """No more streams are taken; those that are open may end."""
        with contextlib.suppress(Broken):
            self._connection.send_goaway(code, debug_data=why)


def _goaway(code: int, why: bytes) -> bytes:
    """The frame that ends a connection: all streams may have been looked at."""
    body = (2**31 - 1).to_bytes(4, "big") + code.to_bytes(4, "big") + why
    return len(body).to_bytes(3, "big") + b"\7\0" + bytes(4) + body
