"""Streams on the edge of nghttp2: what ends one alone, what is odd and allowed, how many there are, and goodbyes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.edge.http2 import PREFACE, STREAMS
from serving.edge.nghttp2_server import Nghttp2Server
from serving.protocol.codes import Code
from tests.support.edge_port import bystander, edge
from tests.support.frames import (
    A_LOT,
    ACK,
    DATA,
    GOAWAY,
    INFER_PATH,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_PATH,
    TOO_LARGE,
    Attack,
    Raw,
    fields,
    frame,
    message,
    reset,
    settings,
    widen,
)
from tests.support.grpc_port import Held


@pytest.fixture(scope="module")
def server() -> Iterator[Nghttp2Server]:
    with edge() as opened:
        yield opened


# The call on stream 1 is ended with this code, and the connection goes on.
RESETS: dict[str, tuple[int, Attack]] = {
    f"{name}": (PROTOCOL_ERROR, lambda client, said=said: client.call(1, b"x", said))
    for name, said in {
        "no :path": fields(without=[b":path"]),
        "an empty :path": fields(b""),
        "a :path without a slash": fields(b"path"),
        "no :method": fields(without=[b":method"]),
        "no :authority": fields(without=[b":authority"]),
        "two :path": [(b":path", b"/"), *fields()],
        ":path after the others": [*fields(without=[b":path"]), (b":path", INFER_PATH)],
        "a name in capitals": fields(INFER_PATH, (b"X-Name", b"x")),
        "a line break in a value": fields(INFER_PATH, (b"x-name", b"x\r\ny: z")),
        "a field of HTTP/1.1": fields(INFER_PATH, (b"connection", b"close")),
        "te that is not trailers": fields(INFER_PATH, (b"te", b"gzip")),
        "content-length that is wrong": fields(INFER_PATH, (b"content-length", b"100")),
    }.items()
} | {
    "trailers that do not end the stream": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1) + client.headers(1, [(b"x-name", b"x")]),
    ),
    "trailers with a :path": (
        PROTOCOL_ERROR,
        lambda client: client.headers(1) + client.headers(1, [(b":path", b"/")], end=True),
    ),
}


@pytest.mark.parametrize("case", RESETS)
def test_a_stream_that_breaks_the_rules_is_ended_alone(server: Nghttp2Server, case: str) -> None:
    code, attack = RESETS[case]
    with bystander(server), Raw(server.port) as client:
        client.send(attack(client) + client.call(3, b"another"))
        assert client.seen(1).reset == code
        assert client.seen(3).data == message(b"another")


# Nothing comes of it: the next call on the same connection is answered.
HARMLESS: dict[str, Attack] = {
    "SETTINGS that nobody knows": lambda _: settings((0x99, 1)),
    "a frame that nobody knows": lambda _: frame(0x77, 0xFF, 1, bytes(100)),
    "many frames that nobody knows": lambda _: frame(0x77, 0, 0) * A_LOT,
    "PRIORITY of a stream on itself": lambda _: frame(PRIORITY, 0, 1, bytes((0, 0, 0, 1, 16))),
    "many PRIORITY": lambda _: frame(PRIORITY, 0, 1, bytes(5)) * A_LOT,
    "many PING answers that nobody has asked for": lambda _: frame(PING, ACK, 0, bytes(8)) * A_LOT,
    "many small WINDOW_UPDATE": lambda _: widen(0, 1) * A_LOT,
    "a stream lower than the last": lambda client: client.call(5) + client.headers(3),
    "RST_STREAM twice": lambda client: client.headers(1) + reset(1) * 2,
    "DATA after RST_STREAM": lambda client: client.headers(1) + reset(1) + client.data(1, b"x" * 100),
    "HEADERS of a call whose client has gone": lambda client: client.headers(1) + reset(1) + client.headers(1),
    # A client that goes in the same breath: what is still answered to it hits nobody else.
    "a call, and RST_STREAM": lambda client: client.call(1) + reset(1),
    "a call that is refused, and RST_STREAM": lambda client: client.headers(1, fields(b"/no/method")) + reset(1),
    "no call of gRPC, and RST_STREAM": lambda client: (
        client.headers(1, fields(INFER_PATH, (b"content-type", b"text/html"))) + reset(1)
    ),
    "half a message, and RST_STREAM": lambda client: (
        client.headers(1) + client.data(1, message(b"half", length=9)) + reset(1)
    ),
    "a large message begun, and RST_STREAM": lambda client: (
        client.headers(1) + client.data(1, message(b"begun", length=900_000)) + reset(1)
    ),
    "a message that is refused, and RST_STREAM": lambda client: (
        client.headers(1) + client.data(1, TOO_LARGE) + reset(1)
    ),
    "a message of a stream that is refused, and RST_STREAM": lambda client: (
        client.headers(1, fields(STREAM_PATH)) + client.data(1, TOO_LARGE) + reset(1)
    ),
    "two messages for one, and RST_STREAM": lambda client: (
        client.headers(1) + client.data(1, message(b"x") * 2, end=True) + reset(1)
    ),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_is_odd_and_allowed_hurts_nobody(server: Nghttp2Server, case: str) -> None:
    with bystander(server), Raw(server.port) as client:
        client.send(HARMLESS[case](client) + client.call(101, b"another"))
        assert client.seen(101).data == message(b"another")


def test_as_many_streams_are_answered_at_once_as_were_offered(server: Nghttp2Server) -> None:
    with bystander(server), Raw(server.port) as client:
        streams = [2 * number + 1 for number in range(client.settings[MAX_CONCURRENT_STREAMS])]
        client.send(*(client.headers(stream) for stream in streams))
        client.send(*(client.data(stream, message(b"x"), end=True) for stream in streams))
        assert all(client.seen(stream).data == message(b"x") for stream in streams)


def test_who_has_agreed_to_a_number_of_streams_and_opens_more_is_sent_away(server: Nghttp2Server) -> None:
    with bystander(server), Raw(server.port) as client:
        most = client.settings[MAX_CONCURRENT_STREAMS]
        client.send(*(client.headers(2 * number + 1) for number in range(most + 1)))
        assert client.ended().code == PROTOCOL_ERROR


def test_who_does_not_know_the_number_of_streams_yet_may_try_again(server: Nghttp2Server) -> None:
    with bystander(server), Raw(server.port, greet=False) as client:
        streams = [2 * number + 1 for number in range(STREAMS + 1)]
        client.send(PREFACE, settings(), *(client.headers(stream) for stream in streams))
        assert client.seen(streams[-1]).reset == REFUSED_STREAM
        client.send(*(client.data(stream, message(b"x"), end=True) for stream in streams[:-1]))
        assert all(client.seen(stream).data == message(b"x") for stream in streams[:-1])


def test_padding_is_not_counted_as_a_message(server: Nghttp2Server) -> None:
    """With it more is sent than the window has."""
    sent = message(bytes(100_000))
    with bystander(server), Raw(server.port) as client:
        client.send(client.headers(1), widen(0, len(sent)), widen(1, len(sent)))
        for at in range(0, len(sent), 100):
            client.send(frame(DATA, PADDED, 1, b"\xff" + sent[at : at + 100] + bytes(255)))
        client.send(client.data(1, end=True))
        assert client.seen(1).data == sent


def test_who_says_goodbye_has_its_open_calls_answered_and_is_let_go(server: Nghttp2Server) -> None:
    with bystander(server), Raw(server.port) as client:
        client.send(client.headers(1) + frame(GOAWAY, 0, 0, bytes(8)) + client.data(1, message(b"last"), end=True))
        assert client.seen(1).data == message(b"last")
        assert client.ended().code is None
        assert client.closed


def test_who_goes_on_sending_after_a_refusal_is_told_to_stop(server: Nghttp2Server) -> None:
    with bystander(server), Raw(server.port) as client:
        client.send(client.headers(1, fields(b"/no/method")) + client.data(1, b"x" * 100))
        client.send(client.headers(3) + client.data(3, TOO_LARGE))
        client.read_until(lambda: {1, 3} <= {key for key, seen in client.streams.items() if seen.reset is not None})
        assert [client.streams[stream].reset for stream in (1, 3)] == [NO_ERROR, NO_ERROR]


@pytest.mark.parametrize("attack", [lambda client: frame(GOAWAY, 0, 0, bytes(8)), lambda client: client.headers(2)])
def test_the_server_leaves_while_a_connection_is_being_closed(attack: Attack) -> None:
    with edge() as server, Raw(server.port) as client:
        client.send(attack(client))
        client.ended()
        assert server.stop(1, lambda: False, lambda: None)


@pytest.mark.parametrize("accepts", [b"identity", b"gzip"])
def test_an_answer_that_comes_when_the_port_is_closed_is_dropped(accepts: bytes) -> None:
    held, said = Held(), fields(INFER_PATH, (b"grpc-encoding", accepts), (b"grpc-accept-encoding", accepts))
    with edge(held) as server, Raw(server.port) as client:
        client.send(client.call(1, b"x", said))
        _, call = held.next()
        assert not server.stop(0, lambda: True, lambda: None)
        call.reply(bytes(100_000))
        call.fail(Code.INTERNAL, "and once more")
        client.ended()
        assert client.closed
