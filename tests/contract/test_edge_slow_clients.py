"""Clients that are slow, silent or old, on the edge of nghttp2: each time-out by itself, with limits of tenths of a second."""

from __future__ import annotations

import contextlib
import queue
import ssl
from pathlib import Path

import pytest
import trustme

from serving.edge import sockets
from serving.edge.http2 import PREFACE
from serving.edge.nghttp2_server import Nghttp2Server
from serving.protocol.call import Call
from serving.protocol.codes import Code
from tests.support.edge_port import edge, taken
from tests.support.frames import (
    ACK,
    CONTINUATION,
    ENHANCE_YOUR_CALM,
    NO_ERROR,
    PING,
    PROTOCOL_ERROR,
    STREAM_PATH,
    Raw,
    fields,
    frame,
    message,
)
from tests.support.grpc_port import LIMITS, Held
from tests.support.running import until
from tests.support.tls_files import certificates, put

SOON = 0.1  # seconds
A_WHILE = 5 * SOON  # in which a busy machine has sent a call
LATER = 20 * SOON
SHORT = LIMITS._replace(handshake_seconds=SOON)
HELLO = message(b"hello")


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is looked at more often than once a second."""
    monkeypatch.setattr(sockets, "TICK_SECONDS", SOON / 10)


def time_passes(server: Nghttp2Server) -> None:
    """Until a client that says nothing at all, and is given SOON for that, has been sent away."""
    with Raw(server.port, greet=False) as silent:
        assert silent.plain() == b""


@pytest.mark.parametrize("path", [None, STREAM_PATH], ids=["unary", "stream"])
@pytest.mark.parametrize("begun", [b"\0\0\0", message(b"half", length=9)], ids=["half a prefix", "half a message"])
def test_a_message_that_does_not_go_on_ends_its_call_alone(path: bytes | None, begun: bytes) -> None:
    with edge(limits=LIMITS._replace(message_seconds=SOON)) as server, Raw(server.port) as client:
        client.send(client.headers(1, path and fields(path)) + client.data(1, begun))
        assert client.seen(1).status == Code.UNAVAILABLE.value
        assert f"nothing more of a message has come for {SOON:g} s" in client.streams[1].said
        assert client.ask(3).data == HELLO
        assert taken(server) == (1, 0, 0, 0)


def test_a_call_without_a_message_is_over_after_a_while_and_a_stream_is_not() -> None:
    with edge(limits=SHORT._replace(message_seconds=SOON)) as server, Raw(server.port) as client:
        client.send(client.headers(1, fields(STREAM_PATH)), client.headers(3))
        assert client.seen(3).status == Code.UNAVAILABLE.value
        for _ in range(3):
            time_passes(server)
        client.send(client.data(1, message(b"x"), end=True))
        assert client.seen(1).status == Code.OK.value


def test_a_message_that_comes_byte_by_byte_is_waited_for() -> None:
    """All of it takes longer than the time for which nothing may come."""
    with edge(limits=SHORT._replace(message_seconds=LATER)) as server, Raw(server.port) as client:
        client.send(client.headers(1))
        for each in message(b"a message of some bytes"):
            client.send(client.data(1, bytes([each])))
            time_passes(server)
        client.send(client.data(1, end=True))
        assert client.seen(1).data == message(b"a message of some bytes")


def test_whole_messages_that_wait_for_their_turn_are_no_slow_client() -> None:
    held = Held()
    with edge(held, limits=SHORT._replace(message_seconds=SOON)) as server, Raw(server.port) as client:
        client.send(client.headers(1, fields(STREAM_PATH)) + client.data(1, message(b"x") * 100, end=True))
        first = held.next()[1]
        for _ in range(3):
            time_passes(server)
        first.reply(b"")
        for _ in range(99):
            held.next()[1].reply(b"")
        assert client.seen(1).status == Code.OK.value


def test_a_silent_client_is_asked_whether_it_is_there() -> None:
    with edge(limits=LIMITS._replace(keepalive_seconds=SOON, keepalive_timeout_seconds=LATER)) as server:
        with Raw(server.port) as client:
            for _ in range(3):
                client.read_until(lambda: client.pings > 0)
                client.pings = 0
                client.send(frame(PING, ACK, 0, bytes(8)))
            assert client.ask(1).data == HELLO
            client.ended()
        assert server.counts.closed["keepalive_timeout"] == 1
        until(lambda: taken(server) == (0, 0, 0, 0))


def test_an_idle_connection_is_told_goodbye_and_one_with_an_open_call_is_not_idle() -> None:
    held = Held()
    with edge(held, limits=LIMITS._replace(idle_seconds=A_WHILE)) as server, Raw(server.port) as busy:
        busy.send(busy.call(1))
        _, call = held.next()
        with Raw(server.port) as idle:
            assert idle.ended().code == NO_ERROR
        assert server.counts.closed["idle"] == 1
        call.reply(b"")
        assert busy.seen(1).status == Code.OK.value
        assert busy.ended().code == NO_ERROR


def test_an_old_connection_is_told_goodbye_and_its_calls_are_answered() -> None:
    held = Held()
    with edge(held, limits=SHORT._replace(age_seconds=A_WHILE)) as server, Raw(server.port) as client:
        client.send(client.call(1))
        _, call = held.next()
        client.read_until(lambda: client.goodbye.code is not None)
        for _ in range(3):
            time_passes(server)
        client.send(client.call(3))
        call.reply(b"late")
        assert client.seen(1).data == message(b"late")
        assert client.ended().code == NO_ERROR
        assert client.seen(3).fields == {}, "who opens a call after goodbye is not answered"
        assert held.empty
        assert server.counts.closed["age"] == 1


def test_a_call_of_an_old_connection_is_cut_off_when_its_grace_is_over() -> None:
    held, gone = Held(), queue.SimpleQueue[bool]()
    limits = LIMITS._replace(age_seconds=A_WHILE, age_grace_seconds=SOON)
    with edge(held, limits=limits) as server, Raw(server.port) as client:
        client.send(client.call(1))
        held.next()[1].on_cancel(lambda: gone.put(True))
        assert client.ended().code == NO_ERROR
        assert client.streams.get(1) is None
        client.close()
        assert gone.get(timeout=20)
        until(lambda: taken(server) == (0, 0, 0, 0))


@pytest.mark.parametrize("first", [b"", b"P", PREFACE[:-1]], ids=["nothing", "a byte", "half a preface"])
def test_who_does_not_say_what_is_spoken_is_sent_away(first: bytes) -> None:
    with edge(limits=SHORT) as server, Raw(server.port) as other:
        with Raw(server.port, greet=False) as silent:
            silent.send(first)
            assert silent.plain() == b""
        assert server.counts.closed["handshake_timeout"] == 1
        assert other.ask(1).data == HELLO


def test_who_reads_nothing_from_its_socket_is_sent_away() -> None:
    """Its windows are wide open, and the bytes lie in the network."""

    def infer(payload: bytes, call: Call) -> None:
        call.reply(payload or bytes(LIMITS.message_bytes))

    limits = LIMITS._replace(stalled_seconds=SOON, unsent_answers_in_all=100)
    with edge(infer, limits=limits) as server, Raw(server.port) as other:
        with Raw(server.port, window=4096) as client:
            client.read_freely()
            client.send(*(client.call(stream) for stream in range(1, 41, 2)))
            until(lambda: server.counts.closed["not_reading"] == 1)
        assert other.ask(1).data == HELLO
        until(lambda: taken(server) == (1, 0, 0, 0))


def test_who_does_not_go_when_it_is_sent_away_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on sending, and nobody looks at that."""
    monkeypatch.setattr(sockets, "CLOSING_NS", SOON * 1e9)
    held = Held()
    with edge(held) as server, Raw(server.port) as client:
        client.send(client.headers(2))
        assert client.ended().code == PROTOCOL_ERROR

        def cut_off() -> bool:
            client.send(client.call(1))
            return taken(server) == (0, 0, 0, 0)

        until(cut_off)
        assert held.empty


def test_the_last_words_are_said_in_tls_too(tmp_path: Path) -> None:
    authority = trustme.CA()
    put(tmp_path, authority)
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    with edge(certificates=certificates(tmp_path)) as server:
        for attack, code in (
            (lambda client: client.headers(2), PROTOCOL_ERROR),
            (lambda client: client.headers(1, flags=0) + frame(CONTINUATION, 0, 1) * 100, ENHANCE_YOUR_CALM),
        ):
            with Raw(server.port, tls=context) as client:
                client.send(attack(client))
                assert client.ended().code == code
        with Raw(server.port, greet=False) as plain:
            plain.send(PREFACE)
            assert plain.plain() == b""
        assert server.counts.closed["not_tls"] == 1
        until(lambda: taken(server) == (0, 0, 0, 0))


def test_handshakes_that_are_begun_and_never_finished_keep_nobody_out(tmp_path: Path) -> None:
    """A hundred of them, each with half of what a client says first; two threads shake hands."""
    authority = trustme.CA()
    put(tmp_path, authority)
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    context.set_alpn_protocols(["h2"])
    limits = LIMITS._replace(handshake_seconds=LATER)
    with edge(limits=limits, certificates=certificates(tmp_path)) as server, contextlib.ExitStack() as clients:
        for _ in range(100):
            begun = clients.enter_context(Raw(server.port, greet=False))
            begun.send(hello(context)[:100])
        with Raw(server.port, tls=context) as other:
            assert other.ask(1).data == HELLO
            until(lambda: server.counts.closed["handshake_timeout"] == 100)
            assert other.ask(3).data == HELLO
        until(lambda: taken(server) == (0, 0, 0, 0))


def hello(context: ssl.SSLContext) -> bytes:
    """What a client of TLS says first."""
    said = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost").do_handshake()
    return said.read()
