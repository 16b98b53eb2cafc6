"""How much a client may send, and leave unread, on the edge of nghttp2: it costs itself; whoever takes most gives up first."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator

import pytest

from serving.edge import http2
from serving.edge.grpc_message_streams import UNSENT_BYTES
from serving.edge.nghttp2_server import Nghttp2Server
from serving.edge.traffic import LARGE_BYTES
from serving.protocol.call import Call
from serving.protocol.codes import Code
from tests.support.edge_port import bystander, edge, resident_bytes, taken
from tests.support.frames import STREAM_PATH, Raw, fields, message, reset, widen
from tests.support.grpc_port import MAX_MESSAGE_BYTES, WAIT_SECONDS, Held
from tests.support.running import until

LARGE = MAX_MESSAGE_BYTES * 9 // 10
EXHAUSTED = Code.RESOURCE_EXHAUSTED.value


@pytest.fixture(scope="module")
def server() -> Iterator[Nghttp2Server]:
    with edge() as opened:
        yield opened


@pytest.mark.parametrize("first", [0, 1, 4, 5, 6], ids="{} bytes first".format)
def test_room_is_made_for_a_large_message_however_its_prefix_comes(server: Nghttp2Server, first: int) -> None:
    sent = message(bytes(LARGE))
    with bystander(server), Raw(server.port) as client:
        client.read_freely()
        client.send(client.headers(1))
        client.upload(1, sent[:first], end=False)
        client.upload(1, sent[first:])
        assert client.seen(1).data == sent


@pytest.mark.parametrize("before", [1, 40_000, 200_000])
def test_room_is_made_for_a_large_message_behind_smaller_ones(server: Nghttp2Server, before: int) -> None:
    """The prefix comes with the end of another message, or behind many that wait to be answered."""
    sent = (message(bytes(before)) + message(bytes(LARGE))) * 3
    with bystander(server), Raw(server.port) as client:
        client.read_freely()
        client.send(client.headers(1, fields(STREAM_PATH)))
        client.upload(1, sent)
        assert client.seen(1).status == Code.OK.value
        assert len(client.streams[1].data) > len(sent)


def test_room_is_made_for_a_large_message_behind_some_that_are_answered_late() -> None:
    """Everything that the window takes has come when the large message's turn is."""
    held = Held()
    with edge(held) as server, Raw(server.port) as client:
        client.read_freely()
        sent = message(b"small") * 70 + message(bytes(LARGE))
        client.send(client.headers(1, fields(STREAM_PATH)))
        client.upload(1, sent[:200_000], end=False)
        for _ in range(70):
            held.next()[1].reply(b"")
        client.upload(1, sent[200_000:])
        held.next()[1].reply(b"")
        assert client.seen(1).status == Code.OK.value


def test_what_is_dropped_is_given_back_to_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times what the window of a connection has, in messages that are cut off, are too large, or of no method."""
    monkeypatch.setattr(http2, "CONNECTION_WINDOW", 2**20)
    cut_off, too_large = message(bytes(100_000), length=200_000), message(bytes(100_000), length=2**30)
    cases = [
        (fields(), cut_off),
        (fields(), too_large),
        (fields(b"/no/method"), cut_off),
        (fields(STREAM_PATH), cut_off),
    ]
    with edge() as server, bystander(server), Raw(server.port) as client:
        for number, (said, content) in enumerate(cases * 8):
            stream = 2 * number + 1
            client.send(client.headers(stream, said))
            client.upload(stream, content)
            client.seen(stream)


def test_messages_begun_by_one_are_bounded(server: Nghttp2Server) -> None:
    """Of a hundred that nobody finishes as many are held as two largest ones have bytes; the rest is refused."""
    with bystander(server), Raw(server.port) as client:
        streams = range(1, 201, 2)
        for stream in streams:
            client.send(client.headers(stream))
            client.upload(stream, message(bytes(200_000), length=LARGE), end=False)
        refused = [stream for stream in streams[11:] if client.seen(stream).status == EXHAUSTED]
        assert len(refused) == 89
        until(lambda: taken(server)[1] == 9)
        assert taken(server)[2] <= 2 * MAX_MESSAGE_BYTES


def test_messages_begun_by_many_are_bounded_and_hit_nobody_else(server: Nghttp2Server) -> None:
    """Twenty clients begin what all together may not; who sends less goes on, in a message of several frames as well."""
    with bystander(server), Raw(server.port) as modest, contextlib.ExitStack() as clients:
        modest.read_freely()
        modest.send(modest.headers(1))
        modest.upload(1, message(bytes(300_000))[:100_000], end=False)
        greedy = [clients.enter_context(Raw(server.port)) for _ in range(20)]
        before = resident_bytes()
        for client in greedy:
            client.send(client.headers(1))
            client.upload(1, message(bytes(LARGE))[:-1], end=False)
        until(lambda: taken(server)[1] == 9)
        assert taken(server)[2] <= 8 * MAX_MESSAGE_BYTES
        assert resident_bytes() - before < 100 * MAX_MESSAGE_BYTES
        modest.upload(1, message(bytes(300_000))[100_000:])
        assert modest.seen(1).data == message(bytes(300_000))
        for client in greedy:
            client.read_what_is_there()
        ended = [client.streams[1] for client in greedy if 1 in client.streams and client.streams[1].over]
        assert [each.status for each in ended] == [EXHAUSTED] * 12


def test_messages_that_wait_to_be_looked_at_count_and_are_not_looked_at_for_nobody() -> None:
    """Large ones are looked at aside, where two are kept here; one whose client goes meanwhile is never handed up."""
    go, asked = threading.Event(), queue.SimpleQueue[int]()

    def infer(payload: bytes, call: Call) -> None:
        if len(payload) > LARGE_BYTES:
            asked.put(len(payload))
            assert go.wait(WAIT_SECONDS)
        call.reply(payload)

    with edge(infer) as server, bystander(server), Raw(server.port) as busy, Raw(server.port) as client:
        for each in (busy, client):
            each.read_freely()
        for stream in (1, 3):
            busy.send(busy.headers(stream))
            busy.upload(stream, message(bytes(LARGE)))
            asked.get(timeout=WAIT_SECONDS)
        for stream in (1, 3, 5):
            client.send(client.headers(stream))
            client.upload(stream, message(bytes(LARGE)))
        assert client.seen(5).status == EXHAUSTED
        assert taken(server)[2] == 4 * LARGE
        client.send(reset(1))
        until(lambda: taken(server)[1] == 3)
        go.set()
        for each, stream in ((busy, 1), (busy, 3), (client, 3)):
            assert len(each.seen(stream).data) == LARGE + 5
        asked.get(timeout=WAIT_SECONDS)
        assert asked.empty()


def test_answers_that_are_not_read_are_bounded(server: Nghttp2Server) -> None:
    """A client asks for far more than it reads: it may ask no more, and then it is sent away."""
    with bystander(server), Raw(server.port, window=4096) as client:
        client.send(*(client.headers(stream) for stream in range(1, 401, 2)))
        for stream in range(1, 401, 2):
            client.upload(stream, message(bytes(200_000)))
        until(lambda: server.counts.closed["not_reading"] > 0)
        assert taken(server)[3] <= 9 * MAX_MESSAGE_BYTES, "eight, and what has come in one turn"


def test_who_leaves_answers_unread_may_not_ask_for_more(server: Nghttp2Server) -> None:
    with bystander(server), Raw(server.port) as client:
        for stream in (1, 3, 5):
            client.send(client.headers(stream))
            client.upload(stream, message(bytes(LARGE)))
        until(lambda: taken(server)[3] > 2 * MAX_MESSAGE_BYTES)
        assert client.ask(7).status == EXHAUSTED
        assert "wait to be read by this client" in client.streams[7].said
        client.read_freely()
        assert len(client.seen(5).data) == LARGE + 5
        assert client.ask(9).data == message(b"hello")


def test_a_stream_whose_answers_are_not_read_is_asked_no_more(server: Nghttp2Server) -> None:
    """What its client sends on stays with the client; another call on the connection is answered."""
    with bystander(server), Raw(server.port) as client:
        client.send(widen(0, 2**30), client.headers(1, fields(STREAM_PATH)))
        sent, content = 0, message(bytes(10_000)) * 1000

        def send_on() -> None:
            nonlocal sent
            sent += client.upload(1, content[sent:], wait=False)

        def nothing_is_read() -> bool:
            send_on()
            return taken(server)[3] > UNSENT_BYTES

        until(nothing_is_read)
        assert client.ask(3).data == message(b"hello")
        send_on()
        assert client.ask(5).data == message(b"hello")
        assert sent < MAX_MESSAGE_BYTES
        client.send(reset(1))
