from __future__ import annotations

import pytest

from benchmarks.peers.edge_server import id_of
from protos import grpc_service_pb2 as pb


@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("id", ["", "7", "x" * 127])
def test_the_id_of_a_request_becomes_that_of_its_answer(id: str, version: str) -> None:
    request = pb.ModelInferRequest(
        model_name="reference", model_version=version, id=id, raw_input_contents=[b"\x1a" * 9]
    )
    request.inputs.add(name="x", datatype="FP32", shape=[1, 24, 8])
    answer = pb.ModelInferResponse(model_name="reference").SerializeToString()
    assert pb.ModelInferResponse.FromString(answer + id_of(request.SerializeToString())).id == id


@pytest.mark.parametrize(
    "request_", [b"", b"\x0a", b"\x0a\x05ab", b"\x1a", pb.ModelInferRequest(id="x" * 128).SerializeToString()]
)
def test_what_is_no_short_id_is_left_out(request_: bytes) -> None:
    assert id_of(request_) == b""
