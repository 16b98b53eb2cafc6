"""Watches: answered again and again, and over once, however they end."""

from __future__ import annotations

import pytest

from serving.edge import grpc_wire as wire
from serving.protocol.codes import Code
from tests.support.grpc_in_memory import WATCH, InMemory


def test_a_watch_answers_again_and_again_until_it_is_over() -> None:
    there, over = InMemory(), list[str]()
    stream = there.ask(WATCH, b"health", end=False)
    there.turn()
    ((payload, watch),) = there.watched
    assert payload == b"health"
    watch.on_cancel(lambda: over.append("over"))
    for number in range(3):
        watch.tell(b"%d" % number)
        there.turn()
        assert there.answers[stream].messages[-1] == b"%d" % number
    watch.fail(Code.OK, "")
    watch.fail(Code.OK, "")
    watch.tell(b"late")
    there.turn()
    assert there.answers[stream].messages == [b"0", b"1", b"2"]
    assert there.ended(stream) == (Code.OK, "")
    assert over == ["over"]


@pytest.mark.parametrize("end", ["reset", "deadline", "the server leaves", "the connection is lost"])
def test_a_watch_is_over_once_however_it_ends(end: str) -> None:
    there, over = InMemory(), list[str]()
    stream = there.ask(WATCH, b"health", end=False, grpc_timeout=b"10S")
    there.turn()
    ((_, watch),) = there.watched
    watch.on_cancel(lambda: over.append("over"))
    if end == "reset":
        there.reset(stream)
    elif end == "deadline":
        there.after(11)
        assert there.ended(stream) == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
    elif end == "the server leaves":
        there.connection.leave_calls()
        there.turn()
        assert there.ended(stream) == (Code.UNAVAILABLE, "Server exiting")
    else:
        there.connection.lost()
        assert over == ["over"]
        return
    there.turn()
    assert over == ["over"]


def test_a_watch_that_has_ended_before_it_was_begun_is_over_at_once() -> None:
    """Its message is unpacked elsewhere while its time passes; a subscription that nobody ends would stay for ever."""
    there, over = InMemory(), list[str]()
    there.ask(WATCH, b"health", end=False, packed=b"gzip", grpc_timeout=b"1S")
    there.turn()
    there.after(2)
    there.aside.work()
    for _, watch in there.watched:
        watch.on_cancel(lambda: over.append("over"))
        assert over == ["over"]


def test_a_second_message_on_a_watch_is_not_looked_at() -> None:
    there = InMemory()
    stream = there.ask(WATCH, b"one", end=False)
    there.turn()
    there.send(stream, wire.framed(b"two"))
    there.turn()
    assert [payload for payload, _ in there.watched] == [b"one"]


def test_a_watch_without_a_message_is_refused() -> None:
    there = InMemory()
    stream = there.ask(WATCH)
    there.turn()
    assert there.ended(stream) == (
        Code.UNIMPLEMENTED,
        "the method takes one message, whole; the call has ended without one",
    )
