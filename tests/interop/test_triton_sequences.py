"""Sequences of the unmodified `tritonclient`, and Triton's own examples of them as they are."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.launch import LaunchedServer
from tests.support import triton_sequences
from tests.support.commands import ROOT
from tests.support.grpc_port import EDGES
from tests.support.running import metric

EXAMPLES = ROOT / ".envs/triton_examples/src/python/examples"
SEQUENCES = 3  # of an example
STEPS = 8  # of each


@pytest.fixture(scope="module", params=EDGES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchedServer]:
    repository = triton_sequences.write(tmp_path_factory.mktemp("sequences"))
    with LaunchedServer(repository, "--edge", request.param) as server:
        yield server
        assert server.stop() == 0


def test_unary_streaming_and_asyncio(served: LaunchedServer, client_python: str) -> None:
    program = [client_python, str(Path(__file__).with_name("triton_sequences.py")), served.address]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    for model in (triton_sequences.DYNA, triton_sequences.STRING_DYNA):
        started = metric(served, "sequences_started_total", model=model)
        assert started == metric(served, "sequences_ended_total", model=model, reason="end") == 6
        assert metric(served, "sequence_steps_total", model=model) == 6 * 7


@pytest.mark.examples
@pytest.mark.parametrize("dyna", [False, True], ids=["plain", "dyna"])
@pytest.mark.parametrize("way", ["sequence_sync", "sequence_stream", "aio_sequence_stream"])
def test_tritons_own_example(way: str, dyna: bool, served: LaunchedServer, client_python: str) -> None:
    """Each sends three sequences, one with a text for its id, and compares every answer."""
    assert EXAMPLES.exists(), f"{EXAMPLES} is missing; `make interop-examples` fetches it"
    before = _steps(served)
    program = [client_python, str(EXAMPLES / f"simple_grpc_{way}_infer_client.py"), "-u", served.address]
    done = subprocess.run([*program, *["-d"][:dyna]], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout
    assert _steps(served) - before == SEQUENCES * STEPS


def _steps(server: LaunchedServer) -> float:
    models = (triton_sequences.PLAIN, triton_sequences.DYNA, triton_sequences.STRING_DYNA)
    return sum(metric(server, "sequence_steps_total", model=model) for model in models)
