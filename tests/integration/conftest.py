"""What several integration tests serve, and on which edge.

An edge is chosen by a variable of the environment, so that every server that a test starts has it, however it is started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.edge.edges import AUTO, GRPCIO, NGHTTP2
from serving.launch import LaunchedServer
from tests.support import fake_models, summing

VARIABLE = "LSTM_SERVE_EDGE"
# What a server does for its clients, beside tests/contract/test_edges*.py: asked of each edge every time.
CORE = ("test_bad_requests", "test_many_at_once", "test_server_life", "test_streams")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-edge", action="store_true", help="all of tests/integration that starts servers, on each edge"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Asks each edge what the core of these tests, or with --every-edge all of them, asks a server."""
    asks = metafunc.config.getoption("--every-edge") and hasattr(metafunc.module, LaunchedServer.__name__)
    if asks or Path(metafunc.module.__file__).stem in CORE:
        metafunc.parametrize("edge", (NGHTTP2, GRPCIO), indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def edge(request: pytest.FixtureRequest) -> Iterator[str]:
    """The edge that is asked for. A fixture that keeps a server for a module depends on it."""
    asked: str = getattr(request, "param", os.environ.get(VARIABLE, AUTO))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(VARIABLE, asked)
        yield asked


def pytest_runtest_call(item: pytest.Function) -> None:
    """A server that was started for a test of the other edge would show nothing."""
    edge = item.funcargs["edge"]
    for name, server in item.funcargs.items():
        if isinstance(server, LaunchedServer) and edge != AUTO:
            assert server.wait_for("serving", 1)["edge"] == edge, f"{name} has to depend on the fixture `edge`"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The models `fake`, which two backends can serve, and `other`."""
    folder = tmp_path / "repository"
    summing.write(fake_models.write(folder))
    fake_models.write(folder, "other")
    return folder
