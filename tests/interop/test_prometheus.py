"""Prometheus' own checker reads our metrics without a complaint, idle and after load."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest

from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.wire import RawClient


def test_promtool_has_no_complaint(promtool: str, tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with LaunchedServer(tmp_path, "--backend", "fake") as server, RawClient(server.address) as client:
        idle = server.metrics()
        for _ in range(5):
            client.infer()
        with pytest.raises(grpc.RpcError):
            client.infer("nobody")
        for text in (idle, server.metrics()):
            checked = subprocess.run(
                [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
            )
            assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
