"""What this server alone decides. What it shares with every edge is in tests/contract/test_edges.py and beside it."""

from __future__ import annotations

import queue
import resource
import socket
import threading
from collections.abc import Sequence

import grpc
import pytest
from google.protobuf.message import Message
from ngh2.events import TrailersReceived

from protos import grpc_service_pb2 as pb
from serving.edge import grpc_wire as wire
from serving.edge import nghttp2_server
from serving.edge.edges import NGHTTP2
from serving.edge.health import HealthState
from serving.edge.http2 import PREFACE
from serving.edge.nghttp2_server import CONNECTIONS, SPARE_DESCRIPTORS, Nghttp2Server
from serving.protocol.call import Call, reply_all
from serving.protocol.methods import INFER, SERVICE, Method
from tests.support.grpc_port import LIMITS, WAIT_SECONDS, channel, port, refusal, unary
from tests.support.http2_client import Http2Client, headers


def test_calls_that_come_together_are_handed_up_together() -> None:
    bursts, count = queue.SimpleQueue[int](), 50

    def infer_all(burst: Sequence[tuple[bytes, Call]]) -> None:
        bursts.put(len(burst))
        reply_all([(call, payload) for payload, call in burst])

    server = Nghttp2Server(
        infer_all, (), HealthState(), "127.0.0.1", 0,
        limits=LIMITS, certificates=None, tokens=None, turned_away=lambda code: None,
    )  # fmt: skip
    client = Http2Client()
    with socket.create_connection(("127.0.0.1", server.port)) as connected:
        connected.settimeout(WAIT_SECONDS)
        for number in range(count):
            client.ask(wire.framed(b"%d" % number), asked=headers(f"/{SERVICE}/{INFER}".encode()))
        connected.sendall(client.said())
        ended = 0
        while ended < count:
            ended += sum(isinstance(each, TrailersReceived) for each in client.hear(connected.recv(1 << 16)))
            connected.sendall(client.said())
    server.stop(0, lambda: False, lambda: None)
    assert bursts.get_nowait() == count
    assert bursts.empty()


@pytest.mark.parametrize("cuts", [[1], [14], [23], range(1, 24)])
def test_who_speaks_is_seen_from_the_first_bytes_in_whatever_pieces_they_come(cuts: Sequence[int]) -> None:
    client, events = Http2Client(), list[object]()
    stream = client.ask(wire.framed(b"a"), asked=headers(f"/{SERVICE}/{INFER}".encode()))
    said = bytes(client.said())
    assert said.startswith(PREFACE)
    with port(NGHTTP2) as server, socket.create_connection(("127.0.0.1", server.port)) as connected:
        connected.settimeout(WAIT_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
            connected.sendall(said[begin:end])
        while not any(isinstance(each, TrailersReceived) and each.stream_id == stream for each in events):
            events += client.hear(connected.recv(1 << 16))


@pytest.mark.parametrize("said", [b"G", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\n", b"\0"])
def test_whoever_speaks_something_else_is_told_so(said: bytes) -> None:
    with port(NGHTTP2) as server, socket.create_connection(("127.0.0.1", server.port)) as connected:
        connected.settimeout(WAIT_SECONDS)
        connected.sendall(said)
        told = b""
        while data := connected.recv(1 << 16):
            told += data
        assert b"This port speaks gRPC" in told
        assert server.counts
        assert server.counts.closed["not_http2"] == 1


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_what_is_no_request_of_health_is_told_so(method: str) -> None:
    path = f"/grpc.health.v1.Health/{method}"
    with port(NGHTTP2) as server, channel(server) as client:
        ask = client.unary_unary(path) if method == "Check" else client.unary_stream(path)
        code, said = refusal(lambda: list(ask(b"\xff", timeout=WAIT_SECONDS)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert said.startswith("the request is not a HealthCheckRequest")


def test_methods_of_control_are_called_on_threads_of_their_own() -> None:
    where = queue.SimpleQueue[str]()

    def look(_request: pb.ServerLiveRequest) -> Message:
        where.put(threading.current_thread().name)
        return pb.ServerLiveResponse(live=True)

    with (
        port(NGHTTP2, methods=(Method("ServerLive", pb.ServerLiveRequest, look),)) as server,
        channel(server) as client,
    ):
        unary(client, "ServerLive")(b"", timeout=WAIT_SECONDS)
        assert where.get_nowait().startswith("control")


def test_a_server_that_has_stopped_may_be_stopped_again() -> None:
    with port(NGHTTP2) as server:
        assert server.stop(1, lambda: False, lambda: None) is True
        assert server.stop(1, lambda: False, lambda: None) is True


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [
        (resource.RLIM_INFINITY, CONNECTIONS),
        (10**6, CONNECTIONS),
        (CONNECTIONS + SPARE_DESCRIPTORS, CONNECTIONS),
        (1024, 1024 - SPARE_DESCRIPTORS),
        (100, 50),
        (1, 1),
    ],
)
def test_connections_leave_descriptors_for_others(
    descriptors: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (descriptors, descriptors))
    assert nghttp2_server._most_connections() == connections
