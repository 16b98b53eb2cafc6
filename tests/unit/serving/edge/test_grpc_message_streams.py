"""Streams: answers in the order of the messages, a bounded number in flight, one end, and what a slow reader holds up."""

from __future__ import annotations

import random

import pytest

from protos import grpc_service_pb2 as pb
from serving.edge import grpc_wire as wire
from serving.edge.grpc_calls import COMPRESSED_FROM
from serving.edge.grpc_message_streams import UNSENT_BYTES, WINDOW
from serving.edge.traffic import LARGE_BYTES
from serving.protocol.call import reply_all
from serving.protocol.codes import Code
from serving.telemetry.timeline import now_ns
from tests.support.grpc_in_memory import ECHO, MESSAGE_BYTES, SECOND, STREAM, InMemory


def asked(number: int) -> bytes:
    return pb.ModelInferRequest(id=str(number)).SerializeToString()


def answer(number: int, more: bytes = b"") -> bytes:
    return pb.ModelInferResponse(id=str(number), raw_output_contents=[more]).SerializeToString()


def told(there: InMemory, stream: int) -> list[tuple[str, str]]:
    """Of each message the id of the answer and the error."""
    messages = [pb.ModelStreamInferResponse.FromString(each) for each in there.answers[stream].messages]
    return [(each.infer_response.id, each.error_message) for each in messages]


@pytest.mark.parametrize("handed", ["one by one", "together", "in threes"])
@pytest.mark.parametrize("packed", [b"", b"gzip"])
@pytest.mark.parametrize("seed", range(4))
def test_answers_come_in_the_order_of_the_messages(handed: str, packed: bytes, seed: int) -> None:
    there, drawn, count = InMemory(), random.Random(seed), 9
    stream = there.ask(STREAM, *map(asked, range(count)), packed=packed, grpc_accept_encoding=packed)
    there.turn()
    while there.aside.given:  # compressed messages are unpacked one after the other
        there.aside.work()
        there.turn()
    assert [payload for payload, _ in there.asked] == [asked(number) for number in range(count)]
    left = [(call, answer(number, bytes(2 * COMPRESSED_FROM))) for number, (_, call) in enumerate(there.asked)]
    drawn.shuffle(left)
    at_once = {"one by one": 1, "in threes": 3, "together": count}[handed]
    while left:
        some, left = left[:at_once], left[at_once:]
        if at_once == 1:
            some[0][0].reply(some[0][1])
        else:
            reply_all(some)
        there.turn()
        there.aside.work()
        there.turn()
        assert (there.ended(stream) is None) == bool(left)
    assert told(there, stream) == [(str(number), "") for number in range(count)]
    assert all(
        pb.ModelStreamInferResponse.FromString(each).infer_response.parameters["triton_final_response"].bool_param
        for each in there.answers[stream].messages
    )
    assert there.ended(stream) == (Code.OK, "")
    assert there.nothing_left()


def test_no_more_than_a_window_is_taken_in_before_answers_are_there() -> None:
    there, more = InMemory(), 10
    stream = there.ask(STREAM, *map(asked, range(WINDOW + more)))
    there.turn()
    assert len(there.asked) == WINDOW
    assert there.traffic.unfinished > 0
    for number in range(more):
        there.asked[number][1].reply(answer(number))
        there.turn()
        assert len(there.asked) == WINDOW + number + 1
    assert there.traffic.unfinished == 0
    assert there.ended(stream) is None
    for number, (_, call) in enumerate(there.asked[more:], more):
        call.reply(answer(number))
    there.turn()
    assert len(told(there, stream)) == WINDOW + more
    assert there.ended(stream) == (Code.OK, "")
    assert there.nothing_left()


def test_a_client_that_does_not_read_is_asked_for_nothing_more() -> None:
    there, count = InMemory(patient=True), 6
    stream = there.ask(STREAM, end=False)
    for number in range(count):
        there.send(stream, wire.framed(asked(number)))
        there.turn()
        if len(there.asked) > number:
            there.asked[number][1].reply(answer(number, bytes(100_000)))
            there.turn()
    held = len(there.asked)
    assert UNSENT_BYTES < there.traffic.unsent < UNSENT_BYTES + 200_000
    assert 3 <= held < count
    there.send(stream, end=True)
    there.turn()
    assert there.ended(stream) is None, "what is held back is not lost"
    read = 0
    while there.ended(stream) is None:
        came = len(there.answers[stream].data)
        assert came > read, "it goes on as soon as the client reads"
        there.client.connection.acknowledge_received_data(came - read, stream)
        read = came
        there.turn()
        for number, (_, call) in enumerate(there.asked[held:], held):
            call.reply(answer(number, bytes(100_000)))
            held += 1
        there.turn()
    assert [id for id, _ in told(there, stream)] == [str(number) for number in range(count)]
    assert there.ended(stream) == (Code.OK, "")
    assert there.nothing_left()


def test_a_large_message_holds_up_those_behind_it_on_its_stream_alone() -> None:
    there = InMemory()
    large = pb.ModelInferRequest(id="large", raw_input_contents=[bytes(LARGE_BYTES)]).SerializeToString()
    stream, other = there.ask(STREAM, large, asked(1)), there.ask(STREAM, asked(2))
    there.turn()
    assert [payload for payload, _ in there.asked] == [asked(2)]
    there.aside.work()
    there.turn()
    assert [payload for payload, _ in there.asked] == [asked(2), large, asked(1)]
    for payload, call in there.asked:
        call.reply(pb.ModelInferResponse(id=pb.ModelInferRequest.FromString(payload).id).SerializeToString())
    there.turn()
    assert told(there, stream) == [("large", ""), ("1", "")]
    assert told(there, other) == [("2", "")]


@pytest.mark.parametrize("packed", [b"", b"gzip"])
def test_an_error_is_told_in_its_place_with_the_id_of_its_request(packed: bytes) -> None:
    there = InMemory()
    stream = there.ask(STREAM, asked(0), asked(1), asked(2), packed=packed)
    there.turn()
    while there.aside.given:
        there.aside.work()
        there.turn()
    calls = [call for _, call in there.asked]
    calls[2].reply(answer(2))
    calls[1].fail(Code.INVALID_ARGUMENT, "one is wrong")
    there.turn()
    assert told(there, stream) == []
    calls[0].reply(answer(0))
    there.turn()
    assert told(there, stream) == [("0", ""), ("1", "one is wrong"), ("2", "")]
    assert there.ended(stream) == (Code.OK, "")


@pytest.mark.parametrize(
    ("metadata", "code", "ends"),
    [
        (b"", Code.INVALID_ARGUMENT, False),
        (b"false", Code.INVALID_ARGUMENT, False),
        (b"true", Code.INVALID_ARGUMENT, True),
        (b"true", Code.DEADLINE_EXCEEDED, True),
        (b"", Code.DEADLINE_EXCEEDED, False),  # somebody else's: this stream has none
    ],
)
def test_when_an_error_ends_the_stream(metadata: bytes, code: Code, ends: bool) -> None:
    there, cancelled = InMemory(), list[str]()
    stream = there.ask(STREAM, *map(asked, range(3)), end=False, triton_grpc_error=metadata)
    there.turn()
    calls = [call for _, call in there.asked]
    calls[2].on_cancel(lambda: cancelled.append("the third"))
    calls[0].reply(answer(0))
    calls[1].fail(code, "it is wrong")
    there.turn()
    if ends:
        assert told(there, stream) == [("0", "")]
        assert there.ended(stream) == (code, "it is wrong")
        assert cancelled == ["the third"]
        assert there.nothing_left() or there.open == 1  # until the client has ended its side too
    else:
        assert told(there, stream) == [("0", ""), ("1", "it is wrong")]
        assert there.ended(stream) is None
        assert not cancelled


@pytest.mark.parametrize("first", ["the queue", "the clock"])
def test_a_deadline_is_told_once_whoever_sees_first_that_it_has_passed(first: str) -> None:
    there = InMemory()
    stream = there.ask(STREAM, *map(asked, range(5)), end=False, grpc_timeout=b"1S")
    there.turn()
    calls = [call for _, call in there.asked]
    assert len({call.deadline_ns for call in calls}) == 1
    calls[0].reply(answer(0))
    there.turn()
    if first == "the queue":
        for call in calls[1:]:
            call.fail(Code.DEADLINE_EXCEEDED, "it has waited too long")
        there.turn()
        there.after(5)
    else:
        there.after(5)
        for call in calls[1:]:
            call.fail(Code.DEADLINE_EXCEEDED, "it has waited too long")
        there.turn()
    assert told(there, stream) == [("0", "")], "no error inside the stream"
    ended = there.ended(stream)
    assert ended
    assert ended[0] is Code.DEADLINE_EXCEEDED


def test_a_client_that_goes_cancels_everything_that_waits() -> None:
    there, cancelled = InMemory(), list[int]()
    stream = there.ask(STREAM, *map(asked, range(3)), end=False)
    there.turn()
    calls = [call for _, call in there.asked]
    for number, call in enumerate(calls[:2]):
        call.on_cancel(lambda number=number: cancelled.append(number))
    there.reset(stream)
    there.turn()
    assert cancelled == [0, 1]
    calls[2].on_cancel(lambda: cancelled.append(2))
    assert cancelled == [0, 1, 2], "at once, since it has gone"
    for call in calls:
        call.reply(answer(0))
    there.turn()
    assert there.nothing_left()


def test_a_client_that_goes_in_the_turn_in_which_it_asked_is_asked_for_nothing() -> None:
    there = InMemory()
    stream = there.ask(STREAM, asked(0), end=False)
    data = bytes(there.client.said())
    there.reset(stream)
    there.connection.receive(memoryview(data + bytes(there.client.said())))
    there.turn()
    assert there.asked == []
    assert there.nothing_left()


@pytest.mark.parametrize(
    ("data", "ended"),
    [
        (b"", (Code.OK, "")),
        (wire.framed(b""), None),
        (b"\0\0", (Code.INTERNAL, "the stream has ended within a message; 2 bytes of it are there")),
        (b"\0\0\0\0\2a", (Code.INTERNAL, "the stream has ended within a message; 6 bytes of it are there")),
    ],
    ids=["no message", "an empty one", "half a prefix", "half a message"],
)
def test_how_a_stream_ends_whose_client_says_no_more(data: bytes, ended: tuple[Code, str] | None) -> None:
    there = InMemory()
    stream = there.ask(STREAM, end=False)
    there.send(stream, data, end=True)
    there.turn()
    assert there.ended(stream) == ended


def test_a_stream_that_ends_within_a_message_answers_those_before_it_first() -> None:
    there = InMemory()
    stream = there.ask(STREAM, asked(0), end=False)
    there.send(stream, b"\0\0\0\0\2a", end=True)
    there.turn()
    assert there.ended(stream) is None
    there.asked[0][1].reply(answer(0))
    there.turn()
    assert told(there, stream) == [("0", "")]
    ended = there.ended(stream)
    assert ended
    assert ended[0] is Code.INTERNAL


def test_a_server_that_leaves_answers_what_was_taken_in_and_takes_no_more() -> None:
    there = InMemory()
    stream, idle = there.ask(STREAM, asked(0), end=False), there.ask(STREAM, end=False)
    there.turn()
    assert there.connection.answering
    there.connection.leave_calls()
    there.send(stream, wire.framed(asked(1)))
    there.turn()
    assert there.ended(idle) == (Code.UNAVAILABLE, "Server exiting")
    assert len(there.asked) == 1
    there.asked[0][1].reply(answer(0))
    there.turn()
    assert told(there, stream) == [("0", "")]
    assert there.ended(stream) == (Code.UNAVAILABLE, "Server exiting")
    assert not there.connection.answering


def test_an_answer_that_is_too_large_ends_the_stream_and_cancels_the_rest() -> None:
    there, cancelled = InMemory(), list[str]()
    stream = there.ask(STREAM, asked(0), asked(1), end=False)
    there.turn()
    there.asked[1][1].on_cancel(lambda: cancelled.append("the second"))
    there.asked[0][1].reply(answer(0, bytes(MESSAGE_BYTES + 1)))
    there.turn()
    ended = there.ended(stream)
    assert ended
    assert ended[0] is Code.RESOURCE_EXHAUSTED
    assert "--max-message-bytes" in ended[1]
    assert cancelled == ["the second"]


def test_an_answer_that_is_there_before_its_message_is_known_to_be_handed_up_ends_nothing() -> None:
    """It comes from the thread that has unpacked the message, which tells of that afterwards."""
    there = InMemory()
    there._infer_all = lambda burst: [call.reply(payload) for payload, call in burst]  # type: ignore[method-assign]
    stream = there.ask(STREAM, asked(1), asked(2), packed=b"gzip")
    there.turn()
    there.aside.work()
    there.turn()
    assert there.ended(stream) is None
    there.aside.work()
    there.turn()
    assert len(there.answers[stream].messages) == 2
    assert there.ended(stream) == (Code.OK, "")


def test_an_error_does_not_overtake_the_answers_that_its_client_has_yet_to_read() -> None:
    there = InMemory(patient=True)
    stream = there.ask(STREAM, asked(0), asked(1), end=False, triton_grpc_error=b"true")
    there.turn()
    there.asked[0][1].reply(answer(0, bytes(100_000)))
    there.asked[1][1].fail(Code.INVALID_ARGUMENT, "it is wrong")
    there.turn()
    assert there.traffic.unsent > 0
    assert there.answers[stream].reset is None
    there.client.connection.acknowledge_received_data(len(there.answers[stream].data), stream)
    there.turn()
    assert told(there, stream) == [("0", "")]
    assert there.ended(stream) == (Code.INVALID_ARGUMENT, "it is wrong")
    assert there.answers[stream].reset == 0, "and then it need send no more"


def test_every_other_kind_of_stream_is_answered_as_it_is_and_ends_with_an_error() -> None:
    there = InMemory()
    stream = there.ask(ECHO, b"one", b"two", end=False)
    there.turn()
    assert not there.connection.answering, "nobody waits for it at the end"
    there.control.work()
    there.turn()
    assert there.answers[stream].messages == [b"one", b"two"]
    failing = there.ask(STREAM, b"no request", end=False, triton_grpc_error=b"true", grpc_timeout=b"1H")
    there.turn()
    there.asked[0][1].fail(Code.INVALID_ARGUMENT, "it is wrong")
    there.turn()
    assert there.ended(failing) == (Code.INVALID_ARGUMENT, "it is wrong")


def test_each_message_knows_when_it_came() -> None:
    there, before = InMemory(), now_ns()
    stream = there.ask(STREAM, asked(0), end=False, grpc_timeout=b"60S")
    there.turn()
    between = now_ns()
    there.send(stream, wire.framed(asked(1)))
    there.turn()
    first, second = (call for _, call in there.asked)
    assert before <= first.received_ns <= between <= second.received_ns <= now_ns()
    assert before + 60 * SECOND <= first.deadline_ns == second.deadline_ns
