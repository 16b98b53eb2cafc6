"""The messages of ModelStreamInfer, written without protobuf where that saves reading what was just written.

Nothing is parsed to mark an answer as final: in protobuf's wire format, joining the bytes of two messages merges them, a map
entry included (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from protos import grpc_service_pb2 as pb
from serving.errors import as_text
from serving.protocol.answers import varint
from serving.protocol.request import id_of

_FINAL = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()
_INFER_RESPONSE_TAG = b"\x12"  # field 2 of ModelStreamInferResponse, length-delimited


def answered(response: bytes) -> bytes:
    """The message for this ModelInferResponse, the only one and so the last of its request."""
    return framed(response + _FINAL)


def failed(request: bytes, message: str) -> bytes:
    """The message for a request that has failed."""
    response = pb.ModelInferResponse(id=id_of(request)).SerializeToString() + _FINAL
    return pb.ModelStreamInferResponse(error_message=as_text(message)).SerializeToString() + framed(response)


def framed(response: bytes) -> bytes:
    """The bytes of a ModelStreamInferResponse that holds this ModelInferResponse."""
    return _INFER_RESPONSE_TAG + varint(len(response)) + response
