"""The benchmark of peers with the one server that needs no installing: that it still runs, and what it does with failures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.peers import load_test
from benchmarks.peers.errors import PeerError
from benchmarks.peers.server import MODEL, OURS, Server
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.commands import ROOT


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
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


def test_the_whole_way_from_the_command_to_the_page() -> None:
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--servers", OURS, "--loads", "lengths", "tls"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for load in ("one length", "lengths of their own", "TLS"):
        assert f"| closed loop, 64 in flight, {load} | " in done.stdout
    assert "Could not be measured" not in done.stdout, done.stdout
