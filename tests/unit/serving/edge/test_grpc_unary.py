"""Unary calls and watches from their headers to their end: one answer each, whoever goes first."""

from __future__ import annotations

import itertools

import pytest

from serving.edge import grpc_wire as wire
from serving.edge.grpc_calls import COMPRESSED_FROM
from serving.edge.traffic import LARGE_BYTES
from serving.protocol.call import reply_all
from serving.protocol.codes import Code
from serving.telemetry.timeline import now_ns
from tests.support.grpc_in_memory import INFER, LOOK, MESSAGE_BYTES, SECOND, WATCH, InMemory


def test_a_message_in_one_frame_is_handed_up_and_answered() -> None:
    there = InMemory()
    stream = there.ask(INFER, b"question")
    there.turn()
    ((payload, call),) = there.asked
    assert payload == b"question"
    call.reply(b"answer")
    there.turn()
    assert there.answers[stream].messages == [b"answer"]
    assert there.ended(stream) == (Code.OK, "")
    assert there.nothing_left()


@pytest.mark.parametrize("size", [0, 1, 5, 1000, LARGE_BYTES])
@pytest.mark.parametrize("cuts", [(1,), (4,), (5,), (6,), (1, 2, 3, 4, 5, 6), (5, 500)])
@pytest.mark.parametrize("half_close", [True, False], ids=["ends with the last piece", "ends by itself"])
def test_a_message_in_pieces_is_handed_up_whole(size: int, cuts: tuple[int, ...], half_close: bool) -> None:
    there, message = InMemory(), bytes(size)
    framed = wire.framed(message)
    stream = there.ask(INFER, end=False)
    places = [0, *(cut for cut in cuts if cut < len(framed)), len(framed)]
    for begin, end in itertools.pairwise(places):
        assert not there.asked
        there.send(stream, framed[begin:end], end=half_close and end == len(framed))
        there.turn()
    if not half_close:
        assert not there.asked, "the client has not said that this is all"
        there.send(stream, end=True)
        there.turn()
    ((payload, call),) = there.asked
    assert payload == message
    call.reply(b"answer")
    there.turn()
    assert there.ended(stream) == (Code.OK, "")
    assert there.nothing_left()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "less"),
        (b"\0\0\0", "less"),
        (b"\0\0\0\0\3ab", "less"),
        (b"\0\0\0\0\1ab", "more"),
        (wire.framed(b"one") + wire.framed(b"two"), "more"),
    ],
    ids=["nothing", "half a prefix", "half a message", "a byte more", "two messages"],
)
def test_less_or_more_than_one_message_is_refused(data: bytes, told: str) -> None:
    there = InMemory()
    stream = there.ask(INFER, end=False)
    there.send(stream, data, end=True)
    there.turn()
    assert not there.asked
    assert there.ended(stream) == (
        Code.UNIMPLEMENTED,
        f"the method takes one message, whole; the call has ended with {told}",
    )
    assert there.refused == ["UNIMPLEMENTED"]
    assert there.nothing_left()


@pytest.mark.parametrize("answered", ["one by one", "together"])
@pytest.mark.parametrize("accepts", [(b"",) * 3, (b"gzip",) * 3, (b"", b"gzip", b"")])
def test_answers_reach_their_calls_in_any_order(answered: str, accepts: tuple[bytes, ...]) -> None:
    there, large = InMemory(), bytes(COMPRESSED_FROM + 1)
    streams = [
        there.ask(INFER, b"%d" % number, packed=each, grpc_accept_encoding=each or b"identity")
        for number, each in enumerate(accepts)
    ]
    there.turn()
    there.aside.work()
    there.turn()
    calls = dict(there.asked)
    answers = [(calls[b"%d" % number], b"answer %d" % number + large) for number in (2, 0, 1)]
    if answered == "together":
        reply_all(answers)
    else:
        for call, payload in answers:
            call.reply(payload)
    there.turn()
    there.aside.work()
    there.turn()
    for number, stream in enumerate(streams):
        assert there.answers[stream].messages == [b"answer %d" % number + large]
        assert there.answers[stream].headers.get(b"grpc-encoding", b"") == accepts[number]
        assert (len(there.answers[stream].data) < len(large)) == bool(accepts[number])
        assert there.ended(stream) == (Code.OK, "")
    assert there.nothing_left()


@pytest.mark.parametrize(
    ("encoding", "accepted", "packs"),
    [
        (b"gzip", b"identity,gzip", b"gzip"),
        (b"deflate", b"deflate", b"deflate"),
        (b"gzip", b"identity,deflate", b""),
        (b"gzip", b"", b""),
        (b"identity", b"gzip", b""),
    ],
)
def test_an_answer_is_compressed_as_the_request_was_where_the_client_reads_that(
    encoding: bytes, accepted: bytes, packs: bytes
) -> None:
    there = InMemory()
    stream = there.ask(INFER, b"a", grpc_encoding=encoding, grpc_accept_encoding=accepted)
    there.turn()
    ((_, call),) = there.asked
    call.reply(bytes(COMPRESSED_FROM + 1))
    there.aside.work()
    there.turn()
    assert there.answers[stream].data[0] == bool(packs)
    assert there.answers[stream].headers.get(b"grpc-encoding", b"") == packs


def test_small_answers_are_never_compressed() -> None:
    there = InMemory()
    stream = there.ask(INFER, b"a", grpc_encoding=b"gzip", grpc_accept_encoding=b"gzip")
    there.turn()
    there.asked[0][1].reply(bytes(COMPRESSED_FROM))
    there.turn()
    assert not there.aside.given
    assert there.answers[stream].data[0] == 0


@pytest.mark.parametrize(
    ("message", "packed"), [(bytes(LARGE_BYTES + 1), b""), (b"small", b"gzip")], ids=["large", "compressed"]
)
@pytest.mark.parametrize("path", [INFER, LOOK])
def test_what_takes_long_is_not_done_on_the_thread_of_the_loop(path: bytes, message: bytes, packed: bytes) -> None:
    there = InMemory()
    there.ask(path, message, packed=packed)
    there.turn()
    assert not there.asked
    assert not there.control.given
    there.aside.work()
    there.control.work()
    ((payload, _),) = there.asked + there.looked
    assert payload == message


@pytest.mark.parametrize(
    ("payload", "encoding", "code"),
    [
        (wire.compress(b"gzip", bytes(MESSAGE_BYTES + 1)), b"gzip", Code.RESOURCE_EXHAUSTED),
        (b"no gzip", b"gzip", Code.INTERNAL),
        (b"compressed how?", b"identity", Code.INTERNAL),
    ],
    ids=["a bomb", "damaged", "no encoding"],
)
@pytest.mark.parametrize("path", [INFER, WATCH, LOOK])
def test_what_cannot_be_unpacked_fails_its_call(path: bytes, payload: bytes, encoding: bytes, code: Code) -> None:
    there = InMemory()
    stream = there.ask(path, end=False, grpc_encoding=encoding)
    there.send(stream, wire.framed(payload, compressed=True), end=True)
    there.turn()
    there.aside.work()
    there.turn()
    ended = there.ended(stream)
    assert ended
    assert ended[0] is code
    assert there.refused == [code.name]
    assert there.nothing_left()


def test_a_failure_is_told_as_it_is() -> None:
    there = InMemory()
    stream = there.ask(INFER, b"a")
    there.turn()
    there.asked[0][1].fail(Code.NOT_FOUND, "é")
    there.turn()
    assert there.ended(stream) == (Code.NOT_FOUND, "%C3%A9")
    assert there.refused == [], "who fails it has counted it"


def test_a_client_that_goes_cancels_and_hears_nothing_more() -> None:
    there, cancelled = InMemory(), list[str]()
    gone = there.ask(INFER, b"a")
    there.turn()
    ((_, call),) = there.asked
    call.on_cancel(lambda: cancelled.append("told"))
    there.reset(gone)
    there.turn()
    assert cancelled == ["told"]
    call.on_cancel(lambda: cancelled.append("at once"))
    assert cancelled == ["told", "at once"]
    call.reply(b"late")
    there.turn()
    call.fail(Code.INTERNAL, "late")
    there.turn()
    assert there.nothing_left()
    again = there.ask(INFER, b"b")
    there.turn()
    there.asked[1][1].reply(b"in time")
    there.turn()
    assert there.answers[again].messages == [b"in time"]


def test_a_connection_that_is_lost_cancels_all_of_its_calls() -> None:
    there, cancelled = InMemory(), list[bytes]()
    for name in (b"a", b"b"):
        there.ask(INFER, name)
    there.ask(WATCH, b"c")
    there.ask(INFER, end=False)
    there.turn()
    for name, call in there.asked + there.watched:
        call.on_cancel(lambda name=name: cancelled.append(name))
    there.connection.lost()
    assert sorted(cancelled) == [b"a", b"b", b"c"]
    assert there.nothing_left()


def test_a_deadline_that_passes_before_the_message_is_there_ends_the_call() -> None:
    there = InMemory()
    early = there.ask(INFER, end=False, grpc_timeout=b"10S")
    there.send(early, wire.framed(b"whole")[:-1])
    later = there.ask(INFER, end=False, grpc_timeout=b"1M")
    there.turn()
    there.after(11)
    assert there.ended(early) == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert there.ended(later) is None
    assert there.traffic.unfinished == 0, "what had come of it is forgotten"


def test_the_deadline_of_an_inference_is_left_to_whoever_answers_it() -> None:
    there = InMemory()
    stream = there.ask(INFER, b"a", grpc_timeout=b"1S")
    there.turn()
    ((_, call),) = there.asked
    assert call.deadline_ns - call.received_ns == 10**9
    there.after(5)
    assert there.ended(stream) is None
    call.fail(Code.DEADLINE_EXCEEDED, "it has waited too long")
    there.turn()
    assert there.ended(stream) == (Code.DEADLINE_EXCEEDED, "it has waited too long")


def test_a_message_of_which_nothing_more_comes_is_refused() -> None:
    there = InMemory()
    stream = there.ask(INFER, end=False)
    silent = there.ask(INFER, end=False)
    there.send(stream, wire.framed(bytes(100))[:50])
    there.turn()
    there.after(59)
    assert there.ended(stream) is None
    there.after(61)
    assert there.ended(stream) == (
        Code.UNAVAILABLE,
        "nothing more of a message has come for 60 s; 50 bytes were there",
    )
    assert there.ended(silent) == (
        Code.UNAVAILABLE,
        "nothing more of a message has come for 60 s; 0 bytes were there",
    )


def test_what_comes_after_the_end_is_taken_and_not_looked_at() -> None:
    there = InMemory()
    stream = there.ask(INFER, end=False, grpc_timeout=b"1S")
    there.turn()
    there.connection.tick(now_ns() + 2 * SECOND)
    there.send(stream, wire.framed(b"on its way"), end=True)  # the client has not heard of the end
    there.turn()
    assert not there.asked
    assert there.nothing_left()


# Watches.
