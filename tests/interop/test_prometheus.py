"""Prometheus' own checker reads our metrics without a complaint, idle and after load, and every query of the reference."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import grpc
import pytest

from reference_pages.metrics import PROCESS
from serving.edge.families import FAMILIES
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


def test_every_query_of_the_reference_is_one(promtool: str, tmp_path: Path) -> None:
    queries = [family.query for family in FAMILIES] + [query.format(name) for name, *_, query in PROCESS]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.json"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "reference", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(queries)} rules found" in checked.stdout
