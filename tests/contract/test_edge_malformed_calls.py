"""Calls that are no gRPC, or bad gRPC, on the edge of nghttp2: each ends with a code and a sentence, and hurts no other."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

import pytest

from serving.edge.nghttp2_server import Nghttp2Server
from serving.edge.traffic import Limits
from serving.protocol.codes import Code
from tests.support.edge_port import bystander, edge
from tests.support.frames import INFER_PATH, STREAM_PATH, Fields, Raw, fields, message
from tests.support.grpc_port import MAX_MESSAGE_BYTES, Held

Attack = Callable[[Raw], bytes]
WATCH_PATH = b"/grpc.health.v1.Health/Watch"


@pytest.fixture(scope="module")
def server() -> Iterator[Nghttp2Server]:
    with edge() as opened:
        yield opened


def with_header(name: bytes, value: bytes, path: bytes = INFER_PATH) -> Attack:
    """A call that is right but for one header."""
    return lambda client: client.call(1, b"x", fields(path, (name, value)))


def with_data(data: bytes, said: Fields | None = None, *, end: bool = True) -> Attack:
    """A call whose headers are right."""
    return lambda client: client.headers(1, said) + client.data(1, data, end=end)


def packed(payload: bytes, encoding: bytes = b"gzip", flag: int = 1, path: bytes = INFER_PATH) -> Attack:
    """A call with a message that says that it is compressed."""
    return with_data(message(payload, flag), fields(path, (b"grpc-encoding", encoding)))


ZEROS = gzip.compress(bytes(50 * MAX_MESSAGE_BYTES))

REFUSED: dict[str, tuple[Code, str, Attack]] = {
    "no message": (Code.UNIMPLEMENTED, "ended with less", lambda client: client.headers(1, end=True)),
    "no message, said later": (Code.UNIMPLEMENTED, "ended with less", with_data(b"")),
    "half a prefix": (Code.UNIMPLEMENTED, "ended with less", with_data(b"\0\0\0")),
    "half a message": (Code.UNIMPLEMENTED, "ended with less", with_data(message(b"half", length=9))),
    "two messages to a method of one": (Code.UNIMPLEMENTED, "ended with more", with_data(message(b"x") * 2)),
    "a message and a half": (Code.UNIMPLEMENTED, "ended with more", with_data(message(b"x") + b"\0")),
    "half a message in a stream": (
        Code.INTERNAL,
        "ended within a message",
        with_data(message(b"half", length=9), fields(STREAM_PATH)),
    ),
    "nothing to watch": (Code.UNIMPLEMENTED, "ended without one", with_data(b"", fields(WATCH_PATH))),
    "two messages to watch": (
        Code.UNIMPLEMENTED,
        "more has come",
        with_data(message(b"") * 2, fields(WATCH_PATH), end=False),
    ),
    "a message of 2^32 - 1 bytes": (
        Code.RESOURCE_EXHAUSTED,
        "larger than max (4294967295 vs. 1000000)",
        with_data(message(b"begun", length=2**32 - 1), end=False),
    ),
    "a message of one byte too many": (
        Code.RESOURCE_EXHAUSTED,
        "larger than max (1000001 vs. 1000000)",
        with_data(message(b"begun", length=MAX_MESSAGE_BYTES + 1), end=False),
    ),
    "a compressed message, and nobody says how": (Code.INTERNAL, "does not say how", with_data(message(b"x", 1))),
    "a compressed message, which is identity": (Code.INTERNAL, "does not say how", packed(b"x", b"identity")),
    "a message that begins with 7": (Code.INTERNAL, "begins with 7", packed(gzip.compress(b"x"), flag=7)),
    "no gzip": (Code.INTERNAL, "no gzip", packed(b"this is no gzip")),
    "gzip cut off": (Code.INTERNAL, "not one whole piece of gzip", packed(gzip.compress(b"x")[:-1])),
    "gzip with more behind it": (Code.INTERNAL, "not one whole piece of gzip", packed(gzip.compress(b"x") + b"x")),
    "gzip that does not fit its sum": (Code.INTERNAL, "no gzip", packed(gzip.compress(b"x")[:-8] + bytes(8))),
    "gzip that is said to be deflate": (Code.INTERNAL, "no deflate", packed(gzip.compress(b"x"), b"deflate")),
    "no gzip in a stream": (Code.INTERNAL, "no gzip", packed(b"this is no gzip", path=STREAM_PATH)),
    "a gzip bomb": (Code.RESOURCE_EXHAUSTED, "larger than 1000000 bytes when it is unpacked", packed(ZEROS)),
    "a gzip bomb in a stream": (
        Code.RESOURCE_EXHAUSTED,
        "larger than 1000000 bytes when it is unpacked",
        packed(ZEROS, path=STREAM_PATH),
    ),
    "an encoding that nobody knows": (Code.UNIMPLEMENTED, "grpc-encoding is 'zip'", packed(b"x", b"zip")),
    "a method that is not there": (
        Code.UNIMPLEMENTED,
        "no method '/no/method'",
        lambda client: client.call(1, b"", fields(b"/no/method")),
    ),
    "a path that is no text": (
        Code.UNIMPLEMENTED,
        "no method",
        lambda client: client.call(1, b"", fields(b"/\xff\xc3\xa9")),
    ),
    "a path of 10,000 bytes": (
        Code.UNIMPLEMENTED,
        "no method '/aaaa",
        lambda client: client.call(1, b"", fields(b"/" + b"a" * 9999)),
    ),
    "metadata of more than 16 KB": (
        Code.RESOURCE_EXHAUSTED,
        "16384 are allowed",
        lambda client: client.call(1, b"", fields(INFER_PATH, *((b"x-%d" % n, b"a" * 1000) for n in range(20)))),
    ),
    "the same name over and over": (
        Code.RESOURCE_EXHAUSTED,
        "16384 are allowed",
        lambda client: client.call(1, b"", fields(INFER_PATH, *[(b"x-name", b"a" * 1000)] * 20)),
    ),
} | {
    f"a time-out that is {value!r}": (
        Code.INVALID_ARGUMENT,
        "1 to 8 digits and one of",
        with_header(b"grpc-timeout", value),
    )
    for value in (
        b"",
        b"S",
        b"1",
        b"-1S",
        b"1s",
        b"1.5S",
        b"123456789S",
        b"1 S",
        "²S".encode(),
        b"99999999999999999999999S",
    )
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_call_that_is_wrong_is_refused_by_itself(server: Nghttp2Server, case: str) -> None:
    code, words, attack = REFUSED[case]
    with bystander(server), Raw(server.port) as client:
        client.send(attack(client) + client.call(3, b"another"))
        seen = client.seen(1)
        assert (seen.status, seen.fields[b":status"]) == (code.value, b"200")
        assert words in seen.said
        assert client.seen(3).data == message(b"another")


NO_GRPC: dict[str, tuple[bytes, Attack]] = {
    "GET": (b"405", with_header(b":method", b"GET")),
    "a page": (b"415", with_header(b"content-type", b"text/html")),
    "no content-type": (b"415", lambda client: client.call(1, b"x", fields(without=[b"content-type"]))),
    "gRPC-Web": (b"415", with_header(b"content-type", b"application/grpc-web")),
}


@pytest.mark.parametrize("case", NO_GRPC)
def test_what_is_no_grpc_is_told_so_in_http(server: Nghttp2Server, case: str) -> None:
    status, attack = NO_GRPC[case]
    with bystander(server), Raw(server.port) as client:
        client.send(attack(client) + client.call(3, b"another"))
        seen = client.seen(1)
        assert seen.fields[b":status"] == status
        assert b"grpc-status" not in seen.fields
        assert client.seen(3).data == message(b"another")


ANSWERED: dict[str, Attack] = {
    "no te": lambda client: client.call(1, b"x", fields(without=[b"te"])),
    "gRPC with a subtype": with_header(b"content-type", b"application/grpc+proto"),
    "gRPC with a parameter": with_header(b"content-type", b"application/grpc;charset=utf-8"),
    "-bin metadata that are no base64": with_header(b"x-bin", b"!!"),
    "metadata without a value": with_header(b"x-name", b""),
    "metadata that are no text": with_header(b"x-name", b"\xff\xfe"),
    "trailers": lambda client: (
        client.headers(1) + client.data(1, message(b"x")) + client.headers(1, [(b"x-name", b"x")], end=True)
    ),
    "an end that comes later": lambda client: (
        client.headers(1) + client.data(1, message(b"x")) + client.data(1, end=True)
    ),
    "byte by byte": lambda client: (
        client.headers(1) + b"".join(client.data(1, bytes([each])) for each in message(b"x")) + client.data(1, end=True)
    ),
    "a time-out of a hundred million hours": with_header(b"grpc-timeout", b"99999999H"),
    "deflate": packed(zlib.compress(b"x"), b"deflate"),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_what_is_unusual_is_answered(server: Nghttp2Server, case: str) -> None:
    with bystander(server), Raw(server.port) as client:
        client.send(ANSWERED[case](client))
        assert client.seen(1).data == message(b"x")


def test_a_time_out_of_nothing_is_over_when_the_call_is_handed_up() -> None:
    held = Held()
    with edge(held) as server, Raw(server.port) as client:
        client.send(client.call(1, b"x", fields(INFER_PATH, (b"grpc-timeout", b"0n"))))
        _, call = held.next()
        assert call.deadline_ns == call.received_ns
        call.fail(Code.DEADLINE_EXCEEDED, "too late")
        assert client.seen(1).status == Code.DEADLINE_EXCEEDED.value


@pytest.mark.parametrize("path", [INFER_PATH, STREAM_PATH], ids=["unary", "stream"])
def test_the_limit_of_a_message_holds_below_a_frame_too(path: bytes) -> None:
    with edge(limits=Limits(1024)) as server, Raw(server.port) as client:
        client.send(client.call(1, bytes(1025), fields(path)) + client.call(3, bytes(1024)))
        assert client.seen(1).status == Code.RESOURCE_EXHAUSTED.value
        assert client.seen(3).status == Code.OK.value
