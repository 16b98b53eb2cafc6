"""The benchmark of peers with the one server that needs no installing: that it still runs, and what it does with failures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from benchmarks.peers import edge, floor, load_test
from benchmarks.peers.errors import PeerError
from benchmarks.peers.server import MODEL, OURS, Server
from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.commands import ROOT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("models")
    fake_models.write(repository, MODEL)
    with LaunchedServer(repository, "--backend", "fake") as launched:
        yield Server(OURS, launched.address, launched.process.pid)


def test_a_load_has_the_servers_cpu_time_by_the_servers_own_count(server: Server) -> None:
    before = server.answered() or 0
    figures = load_test.drive(server, ["--concurrency", "4"], 0.3)
    assert figures.requests == (server.answered() or 0) - before > 0
    assert figures.cpu_us > 0
    assert figures.p50_ms is not None
    assert figures.p99_ms is not None
    assert 0 < figures.p50_ms <= figures.p99_ms


def test_a_server_that_refuses_has_not_been_measured(server: Server) -> None:
    with pytest.raises(PeerError, match="lstm-loadtest has ended with"):
        load_test.drive(server, ["--concurrency", "1", "--shape", "x:1000000,3"], 0.1)


def test_the_edge_alone_answers_what_was_recorded_and_counts(server: Server, tmp_path: Path) -> None:
    request = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[bytes(2 * fake_models.FEATURES * 4)])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2, fake_models.FEATURES])
    floor.record(server, request.SerializeToString(), tmp_path)
    recorded = pb.ModelInferResponse.FromString((tmp_path / "ModelInfer").read_bytes())
    with edge.serve(tmp_path) as alone:
        with grpc.insecure_channel(alone.address) as channel:
            send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            request.id = recorded.id = "seven"
            assert pb.ModelInferResponse.FromString(send(request.SerializeToString(), timeout=10)) == recorded
        assert alone.answered() == 1
        figures = load_test.drive(alone, ["--concurrency", "4"], 0.3)
        assert alone.answered() == 1 + figures.requests > 1


def test_the_whole_way_from_the_command_to_the_page() -> None:
    loads = ["lengths", "tls", "mutual-tls"]
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--servers", OURS, "--loads", *loads]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for load in ("one length", "lengths of their own", "TLS", "mutual TLS"):
        assert f"| closed loop, 64 in flight, {load} | " in done.stdout
    assert "Could not be measured" not in done.stdout, done.stdout
