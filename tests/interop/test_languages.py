"""Clients of other languages and libraries, each doing the work of tests/support/client_work.py, against each edge."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.launch import LaunchedServer
from tests.support import client_work
from tests.support.grpc_port import EDGES

CLIENTS = Path(__file__).with_name("clients")


@pytest.fixture(scope="module", params=EDGES)
def worked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LaunchedServer, Path]]:
    folder = tmp_path_factory.mktemp(request.param)
    with client_work.start(folder, "--edge", request.param) as server:
        client_work.write(folder, server.address)
        yield server, folder
        assert server.stop() == 0


@pytest.mark.parametrize("program", ["grpcio_sync.py", "grpcio_asyncio.py"])
def test_grpcio(worked: tuple[LaunchedServer, Path], program: str) -> None:
    client_work.check([sys.executable, str(CLIENTS / program)], *worked)
