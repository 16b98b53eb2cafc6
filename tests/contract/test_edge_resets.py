"""Clients that begin and cancel, on the edge of nghttp2: deadlines that pass hurt nobody, a flood ends its own connection."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

import grpc
import pytest

from serving.edge import grpc_connection
from serving.protocol.call import Call
from tests.support.edge_port import bystander, edge, taken
from tests.support.frames import ENHANCE_YOUR_CALM, INFER_PATH, STREAM_PATH, Raw, fields, message, reset
from tests.support.grpc_port import WAIT_SECONDS, Held, channel, unary
from tests.support.running import until

FLOOD = 3000  # three times what is borne at once
BORNE = 1000, 0.0  # at once, and a second: with nothing a second the speed of this machine does not matter
DEADLINES_A_SECOND = 500
WATCH_PATH = b"/grpc.health.v1.Health/Watch"

Begun = Callable[[Raw, int], bytes]


class Counted:
    """An `infer` that answers, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, payload: bytes, call: Call) -> None:
        if not call.gone:  # as who answers does: nobody waits for the answer
            self.calls += 1
        call.reply(payload)


FLOODS: dict[str, Begun] = {
    "headers": lambda client, stream: client.headers(stream),
    "whole calls": lambda client, stream: client.call(stream),
    "half messages": lambda client, stream: client.headers(stream) + client.data(stream, message(b"half", length=9)),
    "streams": lambda client, stream: client.headers(stream, fields(STREAM_PATH)),
    "streams that have asked": lambda client, stream: (
        client.headers(stream, fields(STREAM_PATH)) + client.data(stream, message(b"x"))
    ),
    "watches": lambda client, stream: client.call(stream, b"", fields(WATCH_PATH)),
}
# Of these more are borne, since a server that lags behind cannot tell them from deadlines that have passed.
HASTY_FLOODS: dict[str, Begun] = {
    "short deadlines": lambda client, stream: client.headers(stream, fields(INFER_PATH, (b"grpc-timeout", b"1n"))),
    "methods that are not there": lambda client, stream: client.headers(stream, fields(b"/no/method")),
    "messages that are too large": lambda client, stream: (
        client.headers(stream, fields(INFER_PATH, (b"grpc-timeout", b"1m")))
        + client.data(stream, message(b"begun", length=2**32 - 1))
    ),
}


@pytest.mark.parametrize("begun", [*FLOODS.values(), *HASTY_FLOODS.values()], ids=[*FLOODS, *HASTY_FLOODS])
def test_who_begins_and_cancels_without_end_is_sent_away(begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = begun in HASTY_FLOODS.values()
    monkeypatch.setattr(grpc_connection, "HASTY" if hasty else "FRUITLESS", BORNE)
    infer = Counted()
    with edge(infer) as server, bystander(server) as other, Raw(server.port) as client:
        asked = infer.calls
        for number in range(FLOOD):
            if client.closed:
                break
            client.send(begun(client, 2 * number + 1) + reset(2 * number + 1))
        goodbye = client.ended()
        assert (goodbye.code, goodbye.why) == (
            ENHANCE_YOUR_CALM,
            b"too many calls that were begun and cancelled at once",
        )
        assert server.counts.closed["flood"] == 1
        assert infer.calls - asked < BORNE[0], "what is cancelled at once is hardly ever handed up"
        assert other.ask(3).data == message(b"hello")


def test_who_cancels_what_was_answered_or_waits_for_its_answer_may_go_on() -> None:
    """Three times as many as a flood may have: each call is handed up before its client goes."""
    held = Held()
    with edge(held) as server, Raw(server.port) as client:
        for number in range(FLOOD):
            stream = 2 * number + 1
            client.send(client.call(stream))
            _, call = held.next()
            client.send(reset(stream))
            call.reply(b"")
        client.send(client.call(2 * FLOOD + 1, b"last"))
        payload, call = held.next()
        call.reply(payload)
        assert client.seen(2 * FLOOD + 1).data == message(b"last")
        until(lambda: taken(server)[1:] == (0, 0, 0))


def test_cancelled_calls_are_told_once_each() -> None:
    held, told = Held(), queue.SimpleQueue[int]()
    with edge(held) as server, Raw(server.port) as client:
        streams = range(1, 201, 2)
        for stream in streams:
            client.send(client.call(stream))
            held.next()[1].on_cancel(lambda stream=stream: told.put(stream))
        client.send(*(reset(stream) for stream in streams))
        assert [told.get(timeout=WAIT_SECONDS) for _ in streams] == list(streams)
        until(lambda: taken(server)[1] == 0)
        assert told.empty()


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.soak)])
def test_deadlines_that_pass_hurt_nobody_on_the_same_connection(seconds: int) -> None:
    """A client of grpcio, 500 of whose deadlines pass each second; what it asks patiently is answered beside."""
    late: queue.SimpleQueue[Call] = queue.SimpleQueue()

    def infer(payload: bytes, call: Call) -> None:
        if payload == b"patient":
            call.reply(payload)
        else:
            call.on_cancel(lambda: late.put(call))

    with edge(infer) as server, channel(server) as client:
        ask, hasty, patient = unary(client), list[grpc.Future](), 0
        begun = time.monotonic()
        for number in range(DEADLINES_A_SECOND * seconds):
            hasty.append(ask.future(b"hasty", timeout=0.02))
            if number % 10 == 0:
                assert ask(b"patient", timeout=WAIT_SECONDS) == b"patient"
                patient += 1
            time.sleep(max(0.0, begun + number / DEADLINES_A_SECOND - time.monotonic()))
        assert {each.code() for each in hasty} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert server.counts.accepted == 1, "on one connection, which was never lost"
        assert patient == DEADLINES_A_SECOND * seconds // 10
        until(lambda: taken(server) == (1, 0, 0, 0))


def test_deadlines_that_have_passed_before_a_slow_server_reads_them_hurt_nobody() -> None:
    """Two thousand calls come with their resets in one piece, as they lie in the socket of a server that lags behind."""
    with edge() as server, bystander(server), Raw(server.port) as client:
        said = fields(INFER_PATH, (b"grpc-timeout", b"2m"))
        for first in range(1, 4001, 200):
            streams = range(first, first + 200, 2)
            client.send(*(client.call(stream, b"x", said) + reset(stream) for stream in streams))
        assert client.ask(10_001).data == message(b"hello")


def test_cancellations_that_cross_answers_of_another_thread_lose_nothing() -> None:
    """Half of thousands of calls are cancelled while they are answered: the others have their own answers."""
    asked: queue.SimpleQueue[tuple[bytes, Call] | None] = queue.SimpleQueue()

    def answer() -> None:
        for payload, call in iter(asked.get, None):
            call.reply(payload)

    answering = threading.Thread(target=answer)
    answering.start()
    said = fields(INFER_PATH, (b"grpc-timeout", b"500m"))
    with edge(lambda payload, call: asked.put((payload, call))) as server, Raw(server.port) as client:
        for first in range(1, 8001, 40):
            streams = range(first, first + 40, 2)
            client.send(*(client.call(stream, b"%d" % stream, said) for stream in streams))
            client.send(*(reset(stream) for stream in streams[::2]))
            client.read_what_is_there()
        assert all(client.seen(stream).data == message(b"%d" % stream) for stream in range(3, 8001, 4))
        until(lambda: taken(server) == (1, 0, 0, 0))
    asked.put(None)
    answering.join(WAIT_SECONDS)
