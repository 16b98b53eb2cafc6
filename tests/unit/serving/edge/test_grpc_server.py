"""What the public server alone decides. What it shares with every edge is in tests/contract/test_edges.py and beside it."""

from __future__ import annotations

import queue
import threading

from google.protobuf.message import Message

from protos import grpc_service_pb2 as pb
from serving.edge.grpc_server import LOADERS
from serving.protocol.methods import Kind, Method
from tests.support.grpc_port import WAIT_SECONDS, channel, port, unary


def test_no_more_are_loaded_at_the_same_time_than_there_are_loaders() -> None:
    begun, go = queue.SimpleQueue[str](), threading.Event()

    def load(request: pb.RepositoryModelLoadRequest) -> Message:
        begun.put(request.model_name)
        assert go.wait(WAIT_SECONDS)
        return pb.RepositoryModelLoadResponse()

    methods = (Method("RepositoryModelLoad", pb.RepositoryModelLoadRequest, load, Kind.LOAD),)
    with port("grpcio", methods=methods) as server, channel(server) as client:
        names = [str(number) for number in range(3 * LOADERS)]
        asked = [pb.RepositoryModelLoadRequest(model_name=name).SerializeToString() for name in names]
        loads = [unary(client, "RepositoryModelLoad").future(each, timeout=WAIT_SECONDS) for each in asked]
        first = {begun.get(timeout=WAIT_SECONDS) for _ in range(LOADERS)}
        assert unary(client)(b"an inference", timeout=WAIT_SECONDS) == b"an inference"
        assert begun.empty()
        go.set()
        assert [load.result() for load in loads] == [b""] * len(loads)
        assert first | {begun.get_nowait() for _ in range(2 * LOADERS)} == set(names)
