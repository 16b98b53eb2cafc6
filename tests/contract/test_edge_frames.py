"""Every wrong frame and every wrong order on the edge of nghttp2: who sends it is told, others go on, nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from serving.edge.http2 import PREFACE
from serving.edge.nghttp2_server import Nghttp2Server
from tests.support.edge_port import bystander, edge
from tests.support.frames import (
    A_LOT,
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_BYTES,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    TOO_LARGE,
    WINDOW_UPDATE,
    Attack,
    Raw,
    fields,
    frame,
    message,
    reset,
    settings,
    widen,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Nghttp2Server]:
    with edge() as opened:
        yield opened


# The connection is ended, with this code.
ENDS: dict[str, tuple[int, Attack]] = {
    "SETTINGS of five bytes": (FRAME_SIZE_ERROR, lambda _: frame(SETTINGS, 0, 0, bytes(5))),
    "SETTINGS on a stream": (PROTOCOL_ERROR, lambda _: frame(SETTINGS, 0, 1)),
    "SETTINGS acknowledged with a body": (FRAME_SIZE_ERROR, lambda _: frame(SETTINGS, ACK, 0, bytes(6))),
    "SETTINGS acknowledged that were not sent": (PROTOCOL_ERROR, lambda _: frame(SETTINGS, ACK, 0)),
    "SETTINGS: push is 2": (PROTOCOL_ERROR, lambda _: settings((2, 2))),
    "SETTINGS: a window of 2^31": (FLOW_CONTROL_ERROR, lambda _: settings((4, 2**31))),
    "SETTINGS: frames of one byte": (PROTOCOL_ERROR, lambda _: settings((5, 1))),
    "SETTINGS of a hundred pairs": (ENHANCE_YOUR_CALM, lambda _: settings(*[(0x99, 1)] * 100)),
    "SETTINGS flood": (ENHANCE_YOUR_CALM, lambda _: settings() * A_LOT),
    "PING of seven bytes": (FRAME_SIZE_ERROR, lambda _: frame(PING, 0, 0, bytes(7))),
    "PING on a stream": (PROTOCOL_ERROR, lambda _: frame(PING, 0, 1, bytes(8))),
    "PING flood": (ENHANCE_YOUR_CALM, lambda _: frame(PING, 0, 0, bytes(8)) * A_LOT),
    "HEADERS on stream 0": (PROTOCOL_ERROR, lambda client: client.headers(0)),
    "HEADERS on an even stream": (PROTOCOL_ERROR, lambda client: client.headers(2)),
    "HEADERS on a stream that is used up": (STREAM_CLOSED, lambda client: client.call(1) + client.headers(1)),
    "HEADERS with more padding than there is": (PROTOCOL_ERROR, lambda _: frame(HEADERS, PADDED | 4, 1, b"\xc8abc")),
    "HEADERS too large for a frame": (FRAME_SIZE_ERROR, lambda _: frame(HEADERS, 4, 1, bytes(FRAME_BYTES + 1))),
    "HPACK that is none": (COMPRESSION_ERROR, lambda _: frame(HEADERS, 5, 1, b"\xff" * 7)),
    "HPACK with index 0": (COMPRESSION_ERROR, lambda _: frame(HEADERS, 5, 1, b"\x80")),
    "HPACK with an index that is not there": (COMPRESSION_ERROR, lambda _: frame(HEADERS, 5, 1, b"\xff\x45")),
    "HPACK with broken Huffman codes": (COMPRESSION_ERROR, lambda _: frame(HEADERS, 5, 1, b"\0\x84\xff\xff\xff\xff\0")),
    "HPACK with a table beyond the limit": (COMPRESSION_ERROR, lambda _: frame(HEADERS, 5, 1, b"\x3f\xff\xff\x03")),
    "HPACK bomb": (ENHANCE_YOUR_CALM, lambda client: bomb(client, 100)),
    "CONTINUATION without HEADERS": (PROTOCOL_ERROR, lambda _: frame(CONTINUATION, END_HEADERS, 1)),
    "CONTINUATION interrupted by a PING": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1, flags=0) + frame(PING, 0, 0, bytes(8)),
    ),
    "CONTINUATION on another stream": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1, flags=0) + frame(CONTINUATION, END_HEADERS, 3),
    ),
    "CONTINUATION without an end": (
        ENHANCE_YOUR_CALM,
        lambda client: client.headers(1, flags=0) + frame(CONTINUATION, 0, 1) * A_LOT,
    ),
    "PUSH_PROMISE": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1) + frame(PUSH_PROMISE, END_HEADERS, 1, bytes((0, 0, 0, 2, 0x82))),
    ),
    "DATA on stream 0": (PROTOCOL_ERROR, lambda _: frame(DATA, 0, 0, b"x")),
    "DATA before HEADERS": (PROTOCOL_ERROR, lambda client: client.data(1, b"x")),
    "DATA after the end": (STREAM_CLOSED, lambda client: client.call(1) + client.data(1, b"x")),
    "DATA too large for a frame": (
        FRAME_SIZE_ERROR,
        lambda client: client.headers(1) + frame(DATA, 0, 1, bytes(FRAME_BYTES + 1)),
    ),
    "DATA with more padding than there is": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1) + frame(DATA, PADDED, 1, b"\x0aabc"),
    ),
    "DATA beyond the window": (
        FLOW_CONTROL_ERROR,
        lambda client: client.headers(1) + client.data(1, message(bytes(100)) * 3000),
    ),
    "DATA flood of no bytes": (ENHANCE_YOUR_CALM, lambda client: client.headers(1) + client.data(1) * A_LOT),
    "WINDOW_UPDATE of three bytes": (FRAME_SIZE_ERROR, lambda _: frame(WINDOW_UPDATE, 0, 0, bytes(3))),
    "WINDOW_UPDATE by 0": (PROTOCOL_ERROR, lambda _: widen(0, 0)),
    "WINDOW_UPDATE by 0 on a stream": (PROTOCOL_ERROR, lambda client: client.headers(1) + widen(1, 0)),
    "WINDOW_UPDATE beyond 2^31": (FLOW_CONTROL_ERROR, lambda _: widen(0, 2**31 - 1)),
    "WINDOW_UPDATE beyond 2^31 on a stream": (
        FLOW_CONTROL_ERROR,
        lambda client: client.headers(1) + widen(1, 2**31 - 1),
    ),
    "WINDOW_UPDATE on a stream that is not open": (PROTOCOL_ERROR, lambda _: widen(1, 1)),
    "RST_STREAM on a stream that is not open": (PROTOCOL_ERROR, lambda _: reset(1)),
    "RST_STREAM on stream 0": (PROTOCOL_ERROR, lambda _: reset(0)),
    "RST_STREAM of three bytes": (
        FRAME_SIZE_ERROR,
        lambda client: client.headers(1) + frame(RST_STREAM, 0, 1, bytes(3)),
    ),
    "GOAWAY on a stream": (PROTOCOL_ERROR, lambda _: frame(GOAWAY, 0, 1, bytes(8))),
    "GOAWAY of four bytes": (FRAME_SIZE_ERROR, lambda _: frame(GOAWAY, 0, 0, bytes(4))),
    "a frame of no known kind, too large": (FRAME_SIZE_ERROR, lambda _: frame(0x77, 0, 1, bytes(FRAME_BYTES + 1))),
    # With calls open: whatever the edge still has to do for them, it does to nobody.
    "half a message, then nonsense": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1) + client.data(1, message(b"half", length=9)) + client.headers(2),
    ),
    "a message that is refused, then nonsense": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1) + client.data(1, TOO_LARGE) + client.headers(2),
    ),
    "a call that is refused, then nonsense": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1, fields(b"/no/method")) + client.headers(2),
    ),
    "half a message, then a flood": (
        ENHANCE_YOUR_CALM,
        lambda client: (
            client.headers(1)
            + client.data(1, message(b"half", length=9))
            + client.headers(3, flags=0)
            + frame(CONTINUATION, 0, 3) * A_LOT
        ),
    ),
}


def bomb(client: Raw, times: int) -> bytes:
    """Headers whose table makes a kilobyte of a byte."""
    first = client.headers(1, fields(b"/no/method"), end=True)
    put = b"\x40\x01x\x7f\xa1\x07" + b"a" * 1056  # a field for the table
    small = frame(HEADERS, END_HEADERS | END_STREAM, 3, put + b"\xbe" * times)
    return first + small


@pytest.mark.parametrize("case", ENDS)
def test_a_connection_that_breaks_the_rules_is_ended_with_a_code(server: Nghttp2Server, case: str) -> None:
    code, attack = ENDS[case]
    with bystander(server), Raw(server.port) as client:
        client.send(attack(client))
        assert client.ended().code == code
        assert client.closed


NO_HTTP2: dict[str, Callable[[Raw], bytes]] = {
    "GET of HTTP/1.1": lambda _: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "POST of HTTP/1.1, which begins as HTTP/2 does": lambda _: b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "frames without a preface": lambda client: settings() + client.call(1),
    "a preface that goes wrong": lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!" + settings(),
    "nothing known": lambda _: b"\xff" * 100,
}


@pytest.mark.parametrize("case", NO_HTTP2)
def test_who_speaks_something_else_is_told_what_is_spoken_here(server: Nghttp2Server, case: str) -> None:
    with bystander(server), Raw(server.port, greet=False) as client:
        client.send(NO_HTTP2[case](client))
        answer = client.plain()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"This port speaks gRPC" in answer


@pytest.mark.parametrize("first", [frame(SETTINGS, ACK, 0), frame(PING, 0, 0, bytes(8))], ids=["SETTINGS ACK", "PING"])
def test_settings_come_first(server: Nghttp2Server, first: bytes) -> None:
    with bystander(server), Raw(server.port, greet=False) as client:
        client.send(PREFACE, first)
        assert client.ended().code == PROTOCOL_ERROR
