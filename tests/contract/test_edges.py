"""What every edge does with a call: who is answered, with which code and message, and who is turned away."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2

from protos import grpc_service_pb2 as pb
from serving.edge.status import DETAILS, PUSHBACK, details, retry_info
from serving.edge.tokens import Tokens
from serving.edge.traffic import LOADERS
from serving.errors import LoadFailed, StartupError, UnknownModel
from serving.protocol.call import Call, reply_all
from serving.protocol.codes import Code
from serving.protocol.methods import SERVICE, Kind, Method
from tests.support.grpc_port import (
    EDGES,
    MAX_MESSAGE_BYTES,
    WAIT_SECONDS,
    Held,
    channel,
    port,
    refusal,
    stream,
    unary,
)

CODE = grpc.StatusCode
BEARER = "0123456789abcdef"
RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "60s",
    "maxBackoff": "60s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRYING = [("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": RETRY_POLICY}]}))]

pytestmark = pytest.mark.parametrize("edge", EDGES)


def live(_request: pb.ServerLiveRequest) -> Message:
    return pb.ServerLiveResponse(live=True)


def unknown(request: pb.ModelReadyRequest) -> Message:
    raise UnknownModel(f"no model {request.name!r}" + "!" * 5000)


METHODS = (Method("ServerLive", pb.ServerLiveRequest, live), Method("ModelReady", pb.ModelReadyRequest, unknown))


def test_an_inference_is_answered_by_whichever_thread_has_the_answer(edge: str) -> None:
    held = Held()
    with port(edge, held) as server, channel(server) as client:
        first, second = (unary(client).future(payload, timeout=WAIT_SECONDS) for payload in (b"one", b"two"))
        calls = dict(held.next() for _ in range(2))
        calls[b"two"].reply(b"answer to two")
        assert second.result() == b"answer to two"
        calls[b"one"].reply(b"answer to one")
        assert first.result() == b"answer to one"


def test_answers_that_are_handed_over_together_each_reach_their_call(edge: str) -> None:
    held = Held()
    with port(edge, held) as server, channel(server) as client:
        asked = [unary(client).future(str(number).encode(), timeout=WAIT_SECONDS) for number in range(3)]
        reply_all([(call, b"answer to " + payload) for payload, call in (held.next() for _ in asked)])
        assert [each.result() for each in asked] == [b"answer to 0", b"answer to 1", b"answer to 2"]


def test_an_inference_that_fails_has_its_code_and_a_message_that_travels(edge: str) -> None:
    message = "é" * 5000
    with port(edge, lambda _payload, call: call.fail(Code.NOT_FOUND, message)) as server, channel(server) as client:
        assert refusal(lambda: unary(client)(b"", timeout=WAIT_SECONDS)) == (CODE.NOT_FOUND, details(message))


def test_a_client_is_told_when_to_try_again(edge: str) -> None:
    def full(_payload: bytes, call: Call) -> None:
        call.fail(Code.UNAVAILABLE, "full", 250)

    with port(edge, full) as server, channel(server) as client, pytest.raises(grpc.RpcError) as refused:
        unary(client)(b"", timeout=WAIT_SECONDS)
    assert (refused.value.code(), refused.value.details()) == (CODE.UNAVAILABLE, "full")
    told = dict(refused.value.trailing_metadata())
    assert told[PUSHBACK] == "250"
    assert told[DETAILS] == retry_info(Code.UNAVAILABLE, "full", 250)


def test_other_errors_say_nothing_of_that(edge: str) -> None:
    def refuse(_payload: bytes, call: Call) -> None:
        call.fail(Code.UNAVAILABLE, "it is leaving")

    with port(edge, refuse) as server, channel(server) as client, pytest.raises(grpc.RpcError) as refused:
        unary(client)(b"", timeout=WAIT_SECONDS)
    assert not {PUSHBACK, DETAILS} & dict(refused.value.trailing_metadata()).keys()


def test_a_client_with_a_retry_policy_obeys_what_it_is_told(edge: str) -> None:
    """By its own policy it would wait for a minute, longer than the call may take."""
    attempts = queue.SimpleQueue[bytes]()

    def full_at_first(payload: bytes, call: Call) -> None:
        attempts.put(payload)
        if attempts.qsize() < 3:
            call.fail(Code.UNAVAILABLE, "full", 50)
        else:
            call.reply(payload)

    with port(edge, full_at_first) as server, channel(server, more=RETRYING) as client:
        assert unary(client)(b"again", timeout=WAIT_SECONDS) == b"again"
    assert attempts.qsize() == 3


def test_an_inference_knows_when_it_came_and_until_when_its_client_waits(edge: str) -> None:
    held = Held()
    with port(edge, held) as server, channel(server) as client:
        patient, hasty = unary(client).future(b"patient"), unary(client).future(b"hasty", timeout=WAIT_SECONDS)
        calls = dict(held.next() for _ in range(2))
        assert calls[b"patient"].deadline_ns is None
        assert calls[b"hasty"].deadline_ns is not None
        assert calls[b"hasty"].received_ns < calls[b"hasty"].deadline_ns
        for call in calls.values():
            call.reply(b"")
        assert (patient.result(), hasty.result()) == (b"", b"")


def test_a_client_that_goes_cancels_its_inference(edge: str) -> None:
    held, cancelled, at_once = Held(), threading.Event(), threading.Event()
    with port(edge, held) as server, channel(server) as client:
        asked = unary(client).future(b"", timeout=WAIT_SECONDS)
        _, call = held.next()
        call.on_cancel(cancelled.set)
        asked.cancel()
        assert cancelled.wait(WAIT_SECONDS)
        call.on_cancel(at_once.set)
        assert at_once.is_set(), "the client has gone already"
        call.fail(Code.CANCELLED, "the client has gone")


def test_the_table_says_what_is_answered(edge: str) -> None:
    with port(edge, methods=METHODS) as server, channel(server) as client:
        answer = unary(client, "ServerLive")(b"", timeout=WAIT_SECONDS)
        assert pb.ServerLiveResponse.FromString(answer).live
        code, _ = refusal(lambda: unary(client, "ServerReady")(b"", timeout=WAIT_SECONDS))
        assert code is CODE.UNIMPLEMENTED


def test_a_method_that_fails_has_the_code_of_its_error_and_trimmed_details(edge: str) -> None:
    asked = pb.ModelReadyRequest(name="m").SerializeToString()
    with port(edge, methods=METHODS) as server, channel(server) as client:
        code, said = refusal(lambda: unary(client, "ModelReady")(asked, timeout=WAIT_SECONDS))
        assert (code, said) == (CODE.INVALID_ARGUMENT, details("no model 'm'" + "!" * 5000))
        code, said = refusal(lambda: unary(client, "ModelReady")(b"\xff", timeout=WAIT_SECONDS))
        assert code is CODE.INVALID_ARGUMENT
        assert said.startswith("the request is not a ModelReadyRequest")


def test_a_message_that_is_too_large_is_refused_before_anybody_sees_it(edge: str) -> None:
    held = Held()
    with port(edge, held) as server, channel(server) as client:
        too_large = bytes(MAX_MESSAGE_BYTES + 1)
        code, _ = refusal(lambda: unary(client)(too_large, timeout=WAIT_SECONDS))
        assert code is CODE.RESOURCE_EXHAUSTED
        assert held.empty


def held_up(begun: queue.SimpleQueue[str], go: threading.Event) -> Callable[[pb.RepositoryModelLoadRequest], Message]:
    """Loads that tell when they have begun, and wait to go on."""

    def load(request: pb.RepositoryModelLoadRequest) -> Message:
        begun.put(request.model_name)
        assert go.wait(WAIT_SECONDS)
        return pb.RepositoryModelLoadResponse()

    return load


def test_loads_that_take_long_hold_up_neither_looks_nor_inferences(edge: str) -> None:
    begun, go = queue.SimpleQueue[str](), threading.Event()

    def fail(_request: pb.RepositoryModelUnloadRequest) -> Message:
        raise LoadFailed("there is nothing to unload")

    methods = (
        Method("ServerLive", pb.ServerLiveRequest, live),
        Method("RepositoryModelLoad", pb.RepositoryModelLoadRequest, held_up(begun, go), Kind.LOAD),
        Method("RepositoryModelUnload", pb.RepositoryModelUnloadRequest, fail, Kind.LOAD),
    )
    with port(edge, methods=methods) as server, channel(server) as client:
        names = [str(number) for number in range(40)]
        asked = [pb.RepositoryModelLoadRequest(model_name=name).SerializeToString() for name in names]
        loads = [unary(client, "RepositoryModelLoad").future(each, timeout=WAIT_SECONDS) for each in asked]
        unload = unary(client, "RepositoryModelUnload").future(b"", timeout=WAIT_SECONDS)
        loading = [begun.get(timeout=WAIT_SECONDS)]
        assert unary(client, "ServerLive")(b"", timeout=WAIT_SECONDS)
        assert unary(client)(b"an inference", timeout=WAIT_SECONDS) == b"an inference"
        go.set()
        assert [load.result() for load in loads] == [b""] * len(loads)
        assert {*loading, *(begun.get_nowait() for _ in names[1:])} == set(names)
        assert refusal(unload.result) == (CODE.INVALID_ARGUMENT, "there is nothing to unload")


def test_calls_without_a_token_are_turned_away_unread_and_told_of(edge: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(BEARER)
    tokens, held, told = Tokens(tmp_path / "tokens", open_health=True), Held(), list[str]()
    with port(edge, held, METHODS, tokens=tokens, turned_away=told.append) as server, channel(server) as client:
        for name in ("ModelInfer", "ModelReady", "NoSuchMethod"):
            code, said = refusal(lambda name=name: unary(client, name)(b"\xff", timeout=WAIT_SECONDS))
            assert code is CODE.UNAUTHENTICATED
            assert "a valid token is needed" in said
        code, _ = refusal(lambda: next(stream(client, iter([b"\xff"]))))
        assert code is CODE.UNAUTHENTICATED
        assert held.empty
        assert told == ["UNAUTHENTICATED"] * 4
        assert unary(client, "ServerLive")(b"", timeout=WAIT_SECONDS), "health is open"
        bearer = [("authorization", f"Bearer {BEARER}")]
        asked = unary(client).future(b"let in", timeout=WAIT_SECONDS, metadata=bearer)
        payload, call = held.next()
        call.reply(payload)
        assert asked.result() == b"let in"
        assert told == ["UNAUTHENTICATED"] * 4


def test_reflection_names_the_services(edge: str) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with port(edge) as server, channel(server) as client:
        reflect = client.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        (answer,) = reflect(iter([asked]), timeout=WAIT_SECONDS)
    assert {each.name for each in answer.list_services_response.service} >= {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_a_taken_port_is_an_error_at_start(edge: str) -> None:
    with port(edge) as server:
        second = port(edge, number=server.port)
        with pytest.raises(StartupError, match=rf"127.0.0.1:{server.port} cannot be bound: the port is taken"):
            second.__enter__()


def test_no_more_are_loaded_at_the_same_time_than_there_are_loaders(edge: str) -> None:
    begun, go = queue.SimpleQueue[str](), threading.Event()

    methods = (Method("RepositoryModelLoad", pb.RepositoryModelLoadRequest, held_up(begun, go), Kind.LOAD),)
    with port(edge, methods=methods) as server, channel(server) as client:
        names = [str(number) for number in range(3 * LOADERS)]
        asked = [pb.RepositoryModelLoadRequest(model_name=name).SerializeToString() for name in names]
        loads = [unary(client, "RepositoryModelLoad").future(each, timeout=WAIT_SECONDS) for each in asked]
        first = {begun.get(timeout=WAIT_SECONDS) for _ in range(LOADERS)}
        assert unary(client)(b"an inference", timeout=WAIT_SECONDS) == b"an inference"
        assert begun.empty()
        go.set()
        assert [load.result() for load in loads] == [b""] * len(loads)
        assert first | {begun.get_nowait() for _ in range(2 * LOADERS)} == set(names)
