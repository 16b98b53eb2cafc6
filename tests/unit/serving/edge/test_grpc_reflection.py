"""Reflection: what it tells is enough to ask the server without having its files."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2 as pb

from serving.edge.grpc_reflection import SERVICES, Reflection
from serving.protocol.codes import Code
from serving.protocol.methods import SERVICE


class Told:
    """A call that keeps the answer."""

    received_ns, deadline_ns = 0, None

    def __init__(self) -> None:
        self.answers: list[pb.ServerReflectionResponse] = []
        self.failures: list[tuple[Code, str]] = []

    def reply(self, payload: bytes) -> None:
        self.answers.append(pb.ServerReflectionResponse.FromString(payload))

    def fail(self, code: Code, message: str) -> None:
        self.failures.append((code, message))


def told(**asked: object) -> pb.ServerReflectionResponse:
    """The one answer to a request, which it must repeat."""
    call, request = Told(), pb.ServerReflectionRequest(host="here", **asked)
    Reflection([SERVICE, *SERVICES]).ask(request.SerializeToString(), call)  # type: ignore[arg-type]
    (answer,) = call.answers
    assert (answer.valid_host, answer.original_request) == ("here", request)
    assert not call.failures
    return answer


def files(answer: pb.ServerReflectionResponse) -> list[descriptor_pb2.FileDescriptorProto]:
    described = answer.file_descriptor_response.file_descriptor_proto
    return [descriptor_pb2.FileDescriptorProto.FromString(each) for each in described]


def test_the_services_are_listed_in_order() -> None:
    listed = [each.name for each in told(list_services="").list_services_response.service]
    assert listed == sorted([SERVICE, *SERVICES])


@pytest.mark.parametrize(
    "asked",
    [
        {"file_containing_symbol": SERVICE},
        {"file_containing_symbol": "inference.ModelInferRequest"},
        {"file_containing_symbol": "inference.ModelInferRequest.InferInputTensor"},
        {"file_containing_symbol": f"{SERVICE}.ModelInfer"},
        {"file_by_filename": "protos/grpc_service.proto"},
    ],
    ids=lambda asked: next(iter(asked.values())),
)
def test_a_client_that_has_nothing_can_make_the_messages_of_what_it_is_told(asked: dict[str, str]) -> None:
    described = files(told(**asked))
    assert described[0].name == "protos/grpc_service.proto", "itself first, then what it needs"
    pool = descriptor_pool.DescriptorPool()
    for file in reversed(described):
        pool.Add(file)  # type: ignore[attr-defined]
    method = pool.FindServiceByName(SERVICE).methods_by_name["ModelInfer"]
    assert {field.name for field in method.input_type.fields} >= {"model_name", "inputs", "raw_input_contents"}
    assert len({file.name for file in described}) == len(described)


@pytest.mark.parametrize(
    ("asked", "about"),
    [
        ({"file_containing_symbol": "inference.Nothing"}, "inference.Nothing"),
        ({"file_by_filename": "nothing.proto"}, "nothing.proto"),
        ({"all_extension_numbers_of_type": "inference.Nothing"}, "inference.Nothing"),
        (
            {"file_containing_extension": pb.ExtensionRequest(containing_type="inference.Nothing", extension_number=1)},
            "inference.Nothing",
        ),
        (
            {
                "file_containing_extension": pb.ExtensionRequest(
                    containing_type="inference.ModelInferRequest", extension_number=1000
                )
            },
            "1000",
        ),
        ({}, "nothing that reflection knows"),
    ],
    ids=["a symbol", "a file", "a type", "the type of an extension", "an extension", "nothing"],
)
def test_what_is_not_there_is_an_answer_and_no_end(asked: dict[str, object], about: str) -> None:
    answer = told(**asked)
    assert answer.error_response.error_code == Code.NOT_FOUND.value
    assert about in answer.error_response.error_message


def test_the_extensions_of_a_type_that_has_none() -> None:
    answer = told(all_extension_numbers_of_type="inference.ModelInferRequest").all_extension_numbers_response
    assert (answer.base_type_name, list(answer.extension_number)) == ("inference.ModelInferRequest", [])


def test_an_extension_is_found_by_its_number() -> None:
    """Ours have none; the options of gRPC's own files do."""
    extended = "google.protobuf.MethodOptions"
    pool = descriptor_pool.Default()
    numbers = told(all_extension_numbers_of_type=extended).all_extension_numbers_response.extension_number
    for number in numbers:
        asked = pb.ExtensionRequest(containing_type=extended, extension_number=number)
        extension = pool.FindExtensionByNumber(pool.FindMessageTypeByName(extended), number)  # type: ignore[attr-defined]
        assert files(told(file_containing_extension=asked))[0].name == extension.file.name


def test_what_is_no_request_ends_the_stream() -> None:
    call = Told()
    Reflection([]).ask(b"\xff", call)  # type: ignore[arg-type]
    ((code, message),) = call.failures
    assert code is Code.INVALID_ARGUMENT
    assert message.startswith("the request is not a ServerReflectionRequest")
