"""A stream without a transport: order, the window, errors inside it or at its end, and who may end it."""

from __future__ import annotations

import threading
import weakref

import pytest

from protos import grpc_service_pb2 as pb
from serving.edge.stream_messages import framed
from serving.edge.streams import WINDOW, Aborted, OpenStreams, Stream
from serving.protocol.call import Call, reply_all
from serving.protocol.codes import Code
from tests.support.grpc_port import WAIT_SECONDS, Held, echo


def asked(number: int) -> bytes:
    return pb.ModelInferRequest(model_name="m", id=str(number)).SerializeToString()


def answer(number: int) -> bytes:
    return pb.ModelInferResponse(model_name="m", id=str(number)).SerializeToString()


def numbered(payload: bytes, call: Call) -> None:
    """Answers at once, with the id of the request."""
    call.reply(answer(int(pb.ModelInferRequest.FromString(payload).id)))


def read(stream: Stream) -> list[pb.ModelStreamInferResponse]:
    """What the client gets until the stream ends."""
    return [pb.ModelStreamInferResponse.FromString(message) for message in stream.answers()]


def test_answers_come_in_the_order_of_the_requests() -> None:
    stream, held = Stream(), Held()
    for number in range(5):
        assert stream.take(asked(number), held)
    stream.no_more()
    for number, (_, call) in reversed(list(enumerate([held.next() for _ in range(5)]))):
        call.reply(answer(number))
    assert [each.infer_response.id for each in read(stream)] == ["0", "1", "2", "3", "4"]


def test_answers_that_are_handed_over_together_each_reach_their_request() -> None:
    streams, held = [Stream(), Stream()], Held()
    for number in range(4):
        streams[number % 2].take(asked(number), held)
    reply_all([(held.next()[1], answer(number)) for number in range(4)])
    for stream in streams:
        stream.no_more()
    assert [[each.infer_response.id for each in read(stream)] for stream in streams] == [["0", "2"], ["1", "3"]]


def test_every_answer_is_marked_as_final_and_keeps_its_own_parameters() -> None:
    stream = Stream()
    own = pb.ModelInferResponse(id="1", parameters={"mine": pb.InferParameter(int64_param=7)})
    stream.take(asked(1), lambda _payload, call: call.reply(own.SerializeToString()))
    stream.no_more()
    (got,) = read(stream)
    assert got.error_message == ""
    assert got.infer_response.id == "1"
    assert got.infer_response.parameters["mine"].int64_param == 7
    assert got.infer_response.parameters["triton_final_response"].bool_param


def test_a_request_knows_when_it_came_and_shares_the_deadline_of_its_stream() -> None:
    stream, held = Stream(deadline_ns=12), Held()
    stream.take(asked(1), held)
    _, call = held.next()
    assert call.received_ns > 0
    assert call.deadline_ns == 12


@pytest.mark.parametrize(
    ("payload", "known_as", "message", "told"),
    [
        (asked(2), "2", "wrong", "wrong"),
        (b"\xff\xff\xff", "", "no request", "no request"),
        (asked(2), "2", "a name on disk that is no text: \udcff", "a name on disk that is no text: ?"),
    ],
    ids=["request", "no request", "no text"],
)
def test_an_error_is_answered_inside_the_stream_which_goes_on(
    payload: bytes, known_as: str, message: str, told: str
) -> None:
    stream = Stream()
    stream.take(asked(1), numbered)
    stream.take(payload, lambda _payload, call: call.fail(Code.INVALID_ARGUMENT, message))
    stream.take(asked(3), numbered)
    stream.no_more()
    got = read(stream)
    assert [each.infer_response.id for each in got] == ["1", known_as, "3"]
    assert [each.error_message for each in got] == ["", told, ""]
    assert all(each.infer_response.parameters["triton_final_response"].bool_param for each in got)


def test_an_error_ends_the_stream_where_that_is_asked_for() -> None:
    stream = Stream(ends_on_error=True)
    stream.take(asked(1), numbered)
    stream.take(asked(2), lambda _payload, call: call.fail(Code.NOT_FOUND, "no such version"))
    stream.take(asked(3), numbered)
    answers = stream.answers()
    assert pb.ModelStreamInferResponse.FromString(next(answers)).infer_response.id == "1"
    with pytest.raises(Aborted, match="no such version") as ended:
        next(answers)
    assert ended.value.code is Code.NOT_FOUND


def test_no_more_than_a_window_is_taken_in_ahead_of_what_is_read() -> None:
    stream, steps = Stream(), list[tuple[str, int]]()
    full = threading.Event()

    def infer(payload: bytes, call: Call) -> None:
        number = int(pb.ModelInferRequest.FromString(payload).id)
        steps.append(("taken", number))
        call.reply(answer(number))
        if number == WINDOW - 1:
            full.set()

    def take() -> None:
        for number in range(2 * WINDOW):
            stream.take(asked(number), infer)
        stream.no_more()

    reader = threading.Thread(target=take)
    reader.start()
    assert full.wait(WAIT_SECONDS)
    for number, _ in enumerate(stream.answers()):
        steps.append(("read", number))
    reader.join(WAIT_SECONDS)
    ahead = [
        number
        for number in range(WINDOW, 2 * WINDOW)
        if steps.index(("taken", number)) < steps.index(("read", number - WINDOW))
    ]
    assert ahead == []


def test_a_client_that_leaves_cancels_what_waits_and_lets_the_reader_go() -> None:
    stream, held = Stream(), Held()
    cancelled, taken = list[int](), list[bool]()
    for number in range(WINDOW):
        stream.take(asked(number), held)
        held.next()[1].on_cancel(lambda number=number: cancelled.append(number))
    reader = threading.Thread(target=lambda: taken.append(stream.take(asked(WINDOW), held)))
    reader.start()
    stream.client_left()
    reader.join(WAIT_SECONDS)
    assert cancelled == list(range(WINDOW))
    assert taken == [False]
    assert held.empty


def test_what_is_cancelled_after_the_client_has_left_is_cancelled_at_once() -> None:
    stream, held, cancelled = Stream(), Held(), threading.Event()
    stream.take(asked(1), held)
    stream.client_left()
    held.next()[1].on_cancel(cancelled.set)
    assert cancelled.is_set()


def test_a_server_that_leaves_answers_what_was_taken_in() -> None:
    stream = Stream()
    stream.take(asked(1), numbered)
    stream.take(asked(2), numbered)
    stream.leave()
    assert not stream.take(asked(3), numbered)
    answers = stream.answers()
    assert [pb.ModelStreamInferResponse.FromString(next(answers)).infer_response.id for _ in range(2)] == ["1", "2"]
    with pytest.raises(Aborted, match="Server exiting") as ended:
        next(answers)
    assert ended.value.code is Code.UNAVAILABLE


def test_all_open_streams_end_when_the_server_leaves() -> None:
    open_streams, streams, ended = OpenStreams(), [Stream(), Stream()], Stream()
    for stream in (*streams, ended):
        open_streams.add(stream)
    assert open_streams
    open_streams.discard(ended)
    open_streams.leave()
    for stream in streams:
        with pytest.raises(Aborted):
            next(stream.answers())
        open_streams.discard(stream)
    assert not open_streams
    assert ended.take(asked(1), echo), "it is no longer one of them"


def test_a_stream_that_is_opened_while_the_server_leaves_ends_at_once() -> None:
    open_streams, late = OpenStreams(), Stream()
    open_streams.leave()
    open_streams.add(late)
    assert not late.take(asked(1), echo)
    with pytest.raises(Aborted):
        next(late.answers())


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 129, 16_383, 16_384, 3_000_000])
def test_a_frame_is_what_protobuf_would_have_written(size: int) -> None:
    response = pb.ModelInferResponse(raw_output_contents=[bytes(size)] if size else [])
    framed_by_protobuf = pb.ModelStreamInferResponse(infer_response=response).SerializeToString()
    assert framed(response.SerializeToString()) == framed_by_protobuf


def test_an_open_stream_keeps_nothing_of_what_it_has_answered() -> None:
    """Clients keep streams open for days; what was asked on them must not stay in memory meanwhile."""
    stream, calls = Stream(), list[weakref.ref[Call]]()

    def infer(payload: bytes, call: Call) -> None:
        calls.append(weakref.ref(call))
        call.on_cancel(lambda: None)
        call.reply(answer(1))

    for number in range(3):
        stream.take(asked(number), infer)
    answers = stream.answers()
    for _ in range(3):
        next(answers)
    stream.no_more()
    assert list(answers) == []
    assert [call() for call in calls] == [None] * 3
