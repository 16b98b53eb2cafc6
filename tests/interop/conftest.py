"""What the interop tests share: real models trained on real data, and the environments of programs that are not ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.launch import LaunchedServer
from tests.support import trained
from tests.support.commands import ROOT
from tests.support.grpc_port import EDGES
from tests.support.once import once
from tests.support.trained import Trained


@pytest.fixture(scope="session")
def vowels(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(once(tmp_path_factory, "vowels", trained.train))


@pytest.fixture(scope="session")
def server(vowels: Trained) -> Iterator[LaunchedServer]:
    """The trained models, for tests that leave the server as it was."""
    with LaunchedServer(vowels.repository, "--backend", "onnx_runtime") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="session", params=EDGES)
def on_each_edge(request: pytest.FixtureRequest, vowels: Trained) -> Iterator[LaunchedServer]:
    """The same as `server`, once for each edge."""
    with LaunchedServer(vowels.repository, "--backend", "onnx_runtime", "--edge", request.param) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="session")
def client_python() -> str:
    """The interpreter of an environment that holds `tritonclient` and nothing of ours."""
    return _made(ROOT / ".envs/client/bin/python")


@pytest.fixture(scope="session")
def onnx_only_python() -> str:
    """The interpreter of an environment with `lstm-serving[onnx]` alone."""
    return _made(ROOT / ".envs/onnx/bin/python")


@pytest.fixture(scope="session")
def perf_analyzer() -> list[str]:
    """The command that runs perf_analyzer."""
    if not any(Path(folder, "libb64.so.0d").exists() for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib")):
        pytest.skip("perf_analyzer needs a Debian package: apt-get install libb64-0d")
    return [
        "sh",
        str(ROOT / "benchmarks/perf_analyzer.sh"),
        "run",
        str(Path(_made(ROOT / ".envs/perf/perf_analyzer")).parent),
    ]


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder with `@grpc/grpc-js`."""
    return Path(_made(ROOT / ".envs/node/node_modules"))


@pytest.fixture(scope="session")
def envoy_program() -> Path:
    """The proxy."""
    return Path(_made(ROOT / ".envs/envoy/envoy/_bin/envoy"))


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker."""
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is a Debian package: apt-get install --no-install-recommends prometheus")
    return found


def _made(path: Path) -> str:
    assert path.exists(), f"{path} is missing; `make interop` makes it"
    return str(path)
