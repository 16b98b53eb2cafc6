"""Repository control by the unmodified `tritonclient`, and what it is told by a server that allows none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serving.launch import LaunchedServer
from tests.support import fake_models, summing

_REFUSED = """
import sys
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException
client = grpcclient.InferenceServerClient(sys.argv[1])
for call in (client.load_model, client.unload_model):
    try:
        call("fake")
    except InferenceServerException as error:
        assert error.status() == "StatusCode.UNAVAILABLE", error
        assert "explicit model load / unload is not allowed if polling is enabled" in error.message(), error
    else:
        raise AssertionError(f"{call} was not refused")
assert client.is_model_ready("fake")
client.close()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    summing.write(fake_models.write(folder))
    return folder


def run(python: str, *arguments: str) -> None:
    done = subprocess.run([python, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_unmodified_client_loads_overrides_and_unloads(
    repository: Path, client_python: str, tmp_path: Path
) -> None:
    fake_models.write(repository, "broken", fail_on=1.0)
    version = fake_models.write(tmp_path / "sent", version=7)
    summing.write(version)
    with LaunchedServer(repository, "--backend", "fake", "--model-control-mode", "explicit") as server:
        run(client_python, str(Path(__file__).with_name("triton_control.py")), server.address, str(version))
        assert server.stop() == 0


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_the_unmodified_client_is_told_that_nobody_loads_here(mode: str, repository: Path, client_python: str) -> None:
    with LaunchedServer(repository, "--backend", "fake", "--model-control-mode", mode) as server:
        run(client_python, "-c", _REFUSED, server.address)
