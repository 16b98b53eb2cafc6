"""Streams of inferences on every edge: order, errors, a client that goes and a server that does."""

from __future__ import annotations

import queue
import threading

import grpc
import pytest

from protos import grpc_service_pb2 as pb
from serving.edge.status import DETAILS, PUSHBACK, details, retry_info
from serving.protocol.call import Call
from serving.protocol.codes import Code
from tests.support.grpc_port import EDGES, WAIT_SECONDS, Held, channel, echo, port, refusal, stream

CODE = grpc.StatusCode
GRPC_ERRORS = [("triton_grpc_error", "true")]

pytestmark = pytest.mark.parametrize("edge", EDGES)


def asked(number: int) -> bytes:
    return pb.ModelInferRequest(model_name="m", id=str(number)).SerializeToString()


def fails_on_two(payload: bytes, call: Call) -> None:
    """Answers with the id of the request; the second one fails."""
    request = pb.ModelInferRequest.FromString(payload)
    if request.id == "2":
        call.fail(Code.INVALID_ARGUMENT, "two is wrong" + "!" * 5000)
    else:
        call.reply(pb.ModelInferResponse(id=request.id).SerializeToString())


def told(message: bytes) -> tuple[str, str]:
    answer = pb.ModelStreamInferResponse.FromString(message)
    return answer.infer_response.id, answer.error_message[:12]


def test_answers_in_order_and_a_half_close_ends_well(edge: str) -> None:
    held = Held()
    with port(edge, held) as server, channel(server) as client:
        opened = stream(client, iter(asked(number) for number in range(10)))
        calls = [held.next()[1] for _ in range(10)]
        for number, call in reversed(list(enumerate(calls))):
            call.reply(pb.ModelInferResponse(id=str(number)).SerializeToString())
        assert [told(each) for each in opened] == [(str(number), "") for number in range(10)]
        assert opened.code() is CODE.OK


@pytest.mark.parametrize("metadata", [[], [("triton_grpc_error", "false")]])
def test_an_error_stays_inside_the_stream(edge: str, metadata: list[tuple[str, str]]) -> None:
    with port(edge, fails_on_two) as server, channel(server) as client:
        opened = stream(client, iter([asked(1), asked(2), asked(3)]), metadata=metadata)
        assert [told(each) for each in opened] == [("1", ""), ("2", "two is wrong"), ("3", "")]
        assert opened.code() is CODE.OK


def test_an_error_ends_the_stream_where_the_client_has_asked_for_that(edge: str) -> None:
    with port(edge, fails_on_two) as server, channel(server) as client:
        opened = stream(client, iter([asked(1), asked(2), asked(3)]), metadata=GRPC_ERRORS)
        assert told(next(opened)) == ("1", "")
        assert refusal(lambda: next(opened)) == (CODE.INVALID_ARGUMENT, details("two is wrong" + "!" * 5000))


def test_a_stream_that_ends_by_overload_says_when_to_try_again(edge: str) -> None:
    def full(_payload: bytes, call: Call) -> None:
        call.fail(Code.UNAVAILABLE, "full", 250)

    with port(edge, full) as server, channel(server) as client:
        opened = stream(client, iter([asked(1)]), metadata=GRPC_ERRORS)
        assert refusal(lambda: next(opened)) == (CODE.UNAVAILABLE, "full")
        told = dict(opened.trailing_metadata())
        assert (told[PUSHBACK], told[DETAILS]) == ("250", retry_info(Code.UNAVAILABLE, "full", 250))
        inside = stream(client, iter([asked(1), asked(2)]))
        assert [pb.ModelStreamInferResponse.FromString(each).error_message for each in inside] == ["full", "full"]
        assert not {PUSHBACK, DETAILS} & dict(inside.trailing_metadata()).keys()


def test_the_deadline_of_the_stream_is_that_of_its_requests(edge: str) -> None:
    held = Held()
    with port(edge, held) as server, channel(server) as client:
        opened = stream(client, iter([asked(1), asked(2)]))
        calls = [held.next()[1] for _ in range(2)]
        assert calls[0].deadline_ns is not None
        assert calls[0].deadline_ns == calls[1].deadline_ns
        for call in calls:
            call.reply(b"")
        assert len(list(opened)) == 2


def test_a_client_that_goes_cancels_what_waits(edge: str) -> None:
    held, cancelled, requests = Held(), queue.SimpleQueue[str](), queue.SimpleQueue[bytes | None]()
    with port(edge, held) as server, channel(server) as client:
        opened = stream(client, iter(requests.get, None))
        calls = dict[bytes, Call]()
        for number in range(2):
            requests.put(asked(number))
            payload, call = held.next()
            call.on_cancel(lambda payload=payload: cancelled.put(payload))
            calls[payload] = call
        opened.cancel()
        assert {cancelled.get(timeout=WAIT_SECONDS) for _ in range(2)} == set(calls)
        for call in calls.values():
            call.fail(Code.CANCELLED, "the client has gone")
        requests.put(None)


def test_a_server_that_leaves_answers_what_it_has_taken_in(edge: str) -> None:
    held, requests, in_time = Held(), queue.SimpleQueue[bytes | None](), list[bool]()
    with port(edge, held) as server, channel(server) as client:
        opened = stream(client, iter(requests.get, None))
        requests.put(asked(1))
        _, call = held.next()
        refusing = threading.Event()
        leaving = threading.Thread(
            target=lambda: in_time.append(server.stop(WAIT_SECONDS, lambda: False, refusing.set))
        )
        leaving.start()
        assert refusing.wait(WAIT_SECONDS)
        call.reply(pb.ModelInferResponse(id="1").SerializeToString())
        assert told(next(opened)) == ("1", "")
        assert refusal(lambda: next(opened)) == (CODE.UNAVAILABLE, "Server exiting")
        leaving.join(WAIT_SECONDS)
        assert in_time == [True]
        requests.put(None)


def test_streams_do_not_wait_for_each_other(edge: str) -> None:
    held = Held()

    def infer(payload: bytes, call: Call) -> None:
        (held if payload == b"slow" else echo)(payload, call)

    with port(edge, infer) as server, channel(server) as client:
        slow = stream(client, iter([b"slow"]))
        _, call = held.next()
        assert len(list(stream(client, iter([b"", b""])))) == 2
        call.reply(b"")
        assert len(list(slow)) == 1


def test_messages_of_all_sizes_follow_one_another(edge: str) -> None:
    """Around the sizes of frames and windows, and with the next message begun while one is looked at."""
    sizes = [5, 300_000, 262_139, 262_134, 10, 900_000, 131_072, 999_000] * 5
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    with port(edge) as server, channel(server) as client:
        answers = list(stream(client, iter(sent)))
    assert [one in answer for one, answer in zip(sent, answers, strict=True)] == [True] * len(sent)
