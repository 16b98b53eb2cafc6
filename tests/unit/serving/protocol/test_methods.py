"""The table of methods against the service's own description, and that every call is answered."""

from __future__ import annotations

import logging
from typing import Any, cast, get_type_hints

import pytest
from google.protobuf.message import Message

from protos import grpc_service_pb2 as pb
from serving.errors import NotReady, UnknownVersion
from serving.lifecycle.control import RepositoryControl
from serving.lifecycle.manager import ModelManager
from serving.protocol.codes import Code
from serving.protocol.control import Control
from serving.protocol.metadata import Metadata
from serving.protocol.methods import INFER, SERVICE, STREAM_INFER, Kind, Method, answered, methods

DESCRIBED = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
METADATA = Metadata(ModelManager(), version="1.2.3")
TABLE = methods(METADATA, Control(cast(RepositoryControl, None), METADATA))
# Parts of the protocol that this server does not have.
NOT_SERVED = {
    *(f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")),
    "TraceSetting",
    "LogSettings",
}


def test_the_table_has_every_method_but_those_of_inference_and_those_that_are_not_served() -> None:
    assert DESCRIBED.full_name == SERVICE
    names = [method.name for method in TABLE]
    assert len(names) == len(set(names))
    assert {each.name for each in DESCRIBED.methods} == {*names, INFER, STREAM_INFER, *NOT_SERVED}


@pytest.mark.parametrize("method", TABLE, ids=[method.name for method in TABLE])
def test_each_takes_and_gives_what_the_service_says(method: Method) -> None:
    described = DESCRIBED.methods_by_name[method.name]
    assert method.request.DESCRIPTOR is described.input_type
    assert get_type_hints(method.answer)["return"].DESCRIPTOR is described.output_type
    assert not described.client_streaming
    assert not described.server_streaming


def test_loading_and_unloading_alone_take_long() -> None:
    long = {method.name for method in TABLE if method.kind is Kind.LOAD}
    assert long == {"RepositoryModelLoad", "RepositoryModelUnload"}


def echo(request: pb.ModelReadyRequest) -> Message:
    return pb.ModelReadyResponse(ready=request.name == "m")


def failing(error: Exception) -> Method:
    def answer(_request: Any) -> Message:
        raise error

    return Method("ModelReady", pb.ModelReadyRequest, answer)


def test_an_answer_is_bytes() -> None:
    method = Method("ModelReady", pb.ModelReadyRequest, echo)
    answer = answered(method, pb.ModelReadyRequest(name="m").SerializeToString())
    assert isinstance(answer, bytes)
    assert pb.ModelReadyResponse.FromString(answer).ready


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UnknownVersion("no such version"), Code.NOT_FOUND, "no such version"),
        (NotReady("Server exiting"), Code.UNAVAILABLE, "Server exiting"),
        (ValueError("a fault"), Code.INTERNAL, "internal error: ValueError: a fault"),
    ],
)
def test_what_goes_wrong_is_an_answer_too(
    error: Exception, code: Code, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    answer = answered(failing(error), b"")
    assert isinstance(answer, tuple)
    assert answer[0] is code
    assert answer[1].startswith(said)


def test_bytes_that_are_no_request_are_refused_before_anybody_is_asked() -> None:
    answer = answered(failing(AssertionError("nobody is asked")), b"\xff\xff\xff")
    assert isinstance(answer, tuple)
    assert answer[0] is Code.INVALID_ARGUMENT
    assert answer[1].startswith("the request is not a ModelReadyRequest: ")
