"""The messages of a stream are what protobuf would have written."""

from __future__ import annotations

import pytest

from protos import grpc_service_pb2 as pb
from serving.edge import stream_messages

FINAL = {"triton_final_response": pb.InferParameter(bool_param=True)}


def read(message: bytes) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse.FromString(message)


@pytest.mark.parametrize(
    "response",
    [
        pb.ModelInferResponse(),
        pb.ModelInferResponse(id="7", model_name="m", raw_output_contents=[b"\0" * 8]),
        pb.ModelInferResponse(parameters={"mine": pb.InferParameter(string_param="a")}),
        pb.ModelInferResponse(parameters={"triton_final_response": pb.InferParameter(bool_param=False)}),
    ],
    ids=["empty", "an answer", "other parameters", "the parameter with another value"],
)
def test_an_answer_is_the_response_marked_as_final(response: pb.ModelInferResponse) -> None:
    marked = pb.ModelInferResponse()
    marked.CopyFrom(response)
    marked.parameters["triton_final_response"].bool_param = True
    assert read(stream_messages.answered(response.SerializeToString())) == pb.ModelStreamInferResponse(
        infer_response=marked
    )


@pytest.mark.parametrize("length", [0, 1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x20_0000])
def test_every_length_is_written_as_protobuf_writes_it(length: int) -> None:
    head = pb.ModelInferResponse(raw_output_contents=[b""]).SerializeToString()
    padding = max(0, length - len(head) - 4)
    response = pb.ModelInferResponse(raw_output_contents=[bytes(padding)]) if length else pb.ModelInferResponse()
    written = stream_messages.framed(response.SerializeToString())
    assert written == pb.ModelStreamInferResponse(infer_response=response).SerializeToString()


@pytest.mark.parametrize("size", [*range(120, 135), *range(16_380, 16_390)])
def test_around_the_lengths_that_take_a_byte_more(size: int) -> None:
    assert stream_messages.framed(bytes(size))[:1] + bytes(size) == b"\x12" + bytes(size)
    written = stream_messages.framed(bytes(size))
    assert written.endswith(bytes(size))
    assert len(written) - size == 2 + (size > 0x7F) + (size > 0x3FFF)


@pytest.mark.parametrize(
    ("request_id", "message", "told"),
    [("7", "it is wrong", "it is wrong"), ("", "", ""), ("é", "half a character: \udcff", "half a character: ?")],
)
def test_a_failure_has_the_id_of_its_request_and_what_is_wrong(request_id: str, message: str, told: str) -> None:
    request = pb.ModelInferRequest(model_name="m", id=request_id, raw_input_contents=[bytes(10)])
    assert read(stream_messages.failed(request.SerializeToString(), message)) == pb.ModelStreamInferResponse(
        error_message=told, infer_response=pb.ModelInferResponse(id=request_id, parameters=FINAL)
    )


def test_what_is_no_request_has_no_id() -> None:
    assert read(stream_messages.failed(b"\xff", "it is no request")).infer_response == pb.ModelInferResponse(
        parameters=FINAL
    )
