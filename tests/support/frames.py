"""A client of HTTP/2 that sends what a test writes, frame by frame, right or wrong, and tells what it is sent.

It greets, and agrees to the server's settings; beyond that it acknowledges nothing by itself, and widens no window.
"""

from __future__ import annotations

import contextlib
import dataclasses
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from serving.edge.http2 import PREFACE
from serving.protocol.methods import INFER, SERVICE, STREAM_INFER

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = range(5, 10)
ENHANCE_YOUR_CALM = 11
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4  # settings
USUAL_WINDOW = 65_535  # bytes that may be sent before anybody has said something about it
FRAME_BYTES = 16 * 1024  # of one frame, as long as nobody has agreed on more
WAIT_SECONDS = 20  # for what must happen; no test passes by waiting
INFER_PATH = f"/{SERVICE}/{INFER}".encode()
STREAM_PATH = f"/{SERVICE}/{STREAM_INFER}".encode()

Fields = list[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """A frame, whether or not there may be such a one."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def message(payload: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A message of gRPC; `length` where it announces another one than it has."""
    return bytes((flag,)) + (len(payload) if length is None else length).to_bytes(4, "big") + payload


def fields(path: bytes = INFER_PATH, *more: tuple[bytes, bytes], without: Iterable[bytes] = ()) -> Fields:
    """The headers of a call; what `more` names takes the place of what it would be."""
    usual = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    named = usual | {name: value for name, value in more if name in usual}
    return [each for each in named.items() if each[0] not in without] + [each for each in more if each[0] not in usual]


def reset(stream: int, code: int = CANCEL) -> bytes:
    """The client ends a call."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def widen(stream: int, count: int) -> bytes:
    """The server may send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, count.to_bytes(4, "big"))


def settings(*pairs: tuple[int, int]) -> bytes:
    """What the client asks the server to hold to."""
    return frame(SETTINGS, 0, 0, b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs))


@dataclasses.dataclass
class Seen:
    """What has come on one stream."""

    fields: dict[bytes, bytes] = dataclasses.field(default_factory=dict)  # headers and trailers
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """`grpc-status`."""
        return int(self.fields[b"grpc-status"])

    @property
    def said(self) -> str:
        """`grpc-message`."""
        return self.fields.get(b"grpc-message", b"").decode()

    @property
    def over(self) -> bool:
        """Whether nothing more can come."""
        return self.ended or self.reset is not None


class Goodbye(NamedTuple):
    """How the server has ended a connection: the code of its last GOAWAY, None where it has sent none, and what that said."""

    code: int | None
    why: bytes


class Raw:
    """A connection; a context manager that closes it. What it reads is kept by stream, in `streams`."""

    def __init__(self, port: int, *, greet: bool = True, window: int | None = None, tls: ssl.SSLContext | None = None):
        self._socket = socket.socket()
        if window:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self._socket.settimeout(WAIT_SECONDS)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self._socket = tls.wrap_socket(self._socket, server_hostname="localhost")
        self._packer = hpack.Encoder()
        self._unpacker = hpack.Decoder()
        self._unread = bytearray()
        self._room: dict[
            int, int
        ] = {}  # what the server takes of a stream, and of all (0), where that is not the usual
        self.streams: dict[int, Seen] = {}
        self.goodbye = Goodbye(None, b"")
        self.pings = self.pongs = 0
        self.pong = b""  # what the last one has said
        self.closed = False  # by the server
        self.settings: dict[int, int] = {}
        if greet:
            self.send(PREFACE, settings())
            self.read_until(lambda: bool(self.settings))
            self.send(frame(SETTINGS, ACK, 0))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Without a word."""
        self._socket.close()

    def abort(self) -> None:
        """By a reset of TCP, whatever is on the way."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    @contextlib.contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Waits no longer than that for what comes."""
        self._socket.settimeout(seconds)
        yield
        self._socket.settimeout(WAIT_SECONDS)

    def send(self, *parts: bytes) -> None:
        """Sends all of it at once. A server that has closed the connection meanwhile is no error: what it has said is read."""
        try:
            self._socket.sendall(b"".join(parts))
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            self.closed = True

    def read_freely(self) -> None:
        """The server may send as much as it likes."""
        most = 2**31 - 1
        self.send(settings((INITIAL_WINDOW_SIZE, most)), widen(0, most - USUAL_WINDOW))

    def headers(self, stream: int, said: Fields | None = None, *, end: bool = False, flags: int = END_HEADERS) -> bytes:
        """The frame that opens a call, or its trailers."""
        packed = self._packer.encode([hpack.NeverIndexedHeaderTuple(*each) for each in said or fields()])
        return frame(HEADERS, flags | (END_STREAM if end else 0), stream, packed)

    def data(self, stream: int, content: bytes = b"", *, end: bool = False) -> bytes:
        """Frames of as many bytes as one may have."""
        places = range(0, max(1, len(content)), FRAME_BYTES)
        return b"".join(
            frame(DATA, END_STREAM if end and at == places[-1] else 0, stream, content[at : at + FRAME_BYTES])
            for at in places
        )

    def call(self, stream: int, payload: bytes = b"", said: Fields | None = None) -> bytes:
        """The frames of a whole call of one message."""
        return self.headers(stream, said) + self.data(stream, message(payload), end=True)

    def upload(self, stream: int, content: bytes, *, end: bool = True, wait: bool = True) -> int:
        """Sends the data of a call as the server makes room for them, all of it or what there is room for now; how much it was.

        Raises `TimeoutError` where there is no room for long.
        """
        at = 0
        self.read_what_is_there()
        while at < len(content) and not self.closed:
            count = min(FRAME_BYTES, len(content) - at, self._room_of(0), self._room_of(stream))
            if count > 0:
                last = end and at + count == len(content)
                self.send(frame(DATA, END_STREAM if last else 0, stream, content[at : at + count]))
                at += count
                for each in (0, stream):
                    self._room[each] = self._room_of(each) - count
            elif wait:
                self.read()
            else:
                break
        return at

    def _room_of(self, stream: int) -> int:
        usual = self.settings.get(INITIAL_WINDOW_SIZE, USUAL_WINDOW) if stream else USUAL_WINDOW
        return self._room.get(stream, usual)

    def ask(self, stream: int, payload: bytes = b"hello") -> Seen:
        """A whole call and what comes of it."""
        self.send(self.call(stream, payload))
        return self.seen(stream)

    def seen(self, stream: int) -> Seen:
        """What comes on a stream until it is over, or the connection is."""
        self.read_until(lambda: stream in self.streams and self.streams[stream].over)
        return self.streams.get(stream, Seen())

    def ended(self) -> Goodbye:
        """Reads until the server closes the connection."""
        self.read_until(lambda: False)
        return self.goodbye

    def read_until(self, enough: Callable[[], bool]) -> None:
        """Reads until it is enough, or until the server closes the connection."""
        while not enough():
            if not self.read():
                return

    def read(self) -> bool:
        """Takes the next frame; False at the end of the connection. Raises `TimeoutError` where none comes."""
        head = self._exactly(9)
        if head is None:
            return False
        got, length = Frame.parse_frame_header(memoryview(head))
        body = self._exactly(length)
        if body is None:
            return False
        got.parse_body(memoryview(body))
        self._note(got)
        return True

    def read_what_is_there(self) -> None:
        """Takes what has come, and waits for nothing but the rest of a frame."""
        while (self._unread or select.select([self._socket], [], [], 0)[0]) and self.read():
            pass

    def plain(self) -> bytes:
        """Everything until the end, from a server that speaks no HTTP/2 with this client."""
        while (more := self._receive()) is not None:
            self._unread += more
        return bytes(self._unread)

    def _note(self, got: Frame) -> None:
        seen = self.streams.setdefault(got.stream_id, Seen()) if got.stream_id else Seen()
        if isinstance(got, HeadersFrame):
            seen.fields.update(self._unpacker.decode(got.data, raw=True))
        elif isinstance(got, DataFrame):
            seen.data += got.data
        elif isinstance(got, RstStreamFrame):
            seen.reset = got.error_code
        elif isinstance(got, GoAwayFrame):
            self.goodbye = Goodbye(got.error_code, got.additional_data)
        elif isinstance(got, WindowUpdateFrame):
            self._room[got.stream_id] = self._room_of(got.stream_id) + got.window_increment
        elif got.type == PING and "ACK" in got.flags:
            self.pongs, self.pong = self.pongs + 1, got.opaque_data
        elif got.type == PING:
            self.pings += 1
        elif isinstance(got, SettingsFrame) and "ACK" not in got.flags:
            self.settings = dict(got.settings)
        if "END_STREAM" in got.flags:
            seen.ended = True

    def _exactly(self, count: int) -> bytes | None:
        while len(self._unread) < count:
            more = self._receive()
            if more is None:
                return None
            self._unread += more
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken

    def _receive(self) -> bytes | None:
        try:
            more = self._socket.recv(FRAME_BYTES)
        except ConnectionResetError:
            more = b""
        self.closed = self.closed or not more
        return more or None


Attack = Callable[[Raw], bytes]
TOO_LARGE = message(b"begun", length=2**32 - 1)
A_LOT = 1000  # of what one would be harmless
