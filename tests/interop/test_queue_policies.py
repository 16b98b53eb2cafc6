"""`tritonclient` says what it wants of the queue by its own arguments."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.grpc_port import EDGES

CONFIG = """
max_batch_size: 1
dynamic_batching {
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { allow_timeout_override: true }
}
"""


@pytest.mark.parametrize("edge", EDGES)
def test_priorities_and_timeouts_of_tritonclient(edge: str, client_python: str, tmp_path: Path) -> None:
    fake_models.write(tmp_path, "slow", delay_seconds=0.5, config=CONFIG)
    with LaunchedServer(tmp_path, "--backend", "fake", "--edge", edge) as server:
        client = [client_python, str(Path(__file__).with_name("triton_queue.py")), server.address, server.metrics_url]
        told = subprocess.run(client, check=True, capture_output=True, text=True).stdout.splitlines()
        assert server.stop() == 0
    refused = "impatient: StatusCode.UNAVAILABLE Request timeout expired"
    assert sorted(told) == sorted(["first", "low", refused, "of no level", "high"])
    assert [name for name in told if name != refused] == ["first", "high", "low", "of no level"]
