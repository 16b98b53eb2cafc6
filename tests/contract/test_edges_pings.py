"""Pings by which clients measure the way, one for each answer they receive: no edge takes them for a flood."""

from __future__ import annotations

import pytest

from tests.support.frames import PING, STREAM_PATH, Raw, fields, frame, message, widen
from tests.support.grpc_port import EDGES, Held, port

MESSAGES = 500  # far more than the pings that a client may send for nothing

pytestmark = pytest.mark.parametrize("edge", EDGES)


def test_a_ping_for_each_answer_of_a_stream_whose_messages_were_all_sent_before(edge: str) -> None:
    held = Held()
    with port(edge, held) as server, Raw(server.port) as client:
        client.send(client.headers(1, fields(STREAM_PATH)), client.data(1, message(b"") * MESSAGES, end=True))
        for number in range(1, MESSAGES + 1):
            _, call = held.next()
            before = len(client.streams[1].data) if 1 in client.streams else 0
            call.reply(b"")
            client.read_until(lambda before=before: 1 in client.streams and len(client.streams[1].data) > before)
            client.send(frame(PING, 0, 0, bytes(8)))
            client.read_until(lambda number=number: client.pongs == number)
        assert client.seen(1).status == 0
        assert client.goodbye.code is None


def test_a_ping_for_each_piece_of_a_large_answer(edge: str) -> None:
    """The client lets the server send a little more each time."""
    answer, piece = bytes(900_000), 4096
    with port(edge, lambda _payload, call: call.reply(answer)) as server, Raw(server.port) as client:
        client.send(client.call(1))
        client.read_until(lambda: 1 in client.streams and len(client.streams[1].data) == 65_535)
        for number in range(1, (len(answer) + 5 - 65_535) // piece + 2):
            before = len(client.streams[1].data)
            client.send(widen(0, piece), widen(1, piece), frame(PING, 0, 0, bytes(8)))
            client.read_until(lambda before=before: len(client.streams[1].data) > before or client.closed)
            client.read_until(lambda number=number: client.pongs == number)
        assert client.seen(1).data == message(answer)
        assert client.goodbye.code is None
