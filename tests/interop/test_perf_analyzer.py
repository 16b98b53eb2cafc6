"""The field's load generator against every backend: no error, and the server counts what it says to have sent."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from serving import backends
from serving.launch import LaunchedServer
from tests.support.trained import Trained
from tests.support.wire import RawClient

REQUESTS = 200


@pytest.mark.parametrize("backend", backends.PREFERENCE)
def test_concurrency_one_to_eight(backend: str, perf_analyzer: list[str], vowels: Trained, tmp_path: Path) -> None:
    report = tmp_path / "report.csv"
    with LaunchedServer(vowels.repository, "--backend", backend) as server, RawClient(server.address) as client:
        for concurrency in range(1, 9):
            before = _statistics(client)
            _run(perf_analyzer, server, "--concurrency-range", str(concurrency), "--request-count", str(REQUESTS),
                 "-f", str(report))  # fmt: skip
            after = _statistics(client)
            assert after.success.count - before.success.count == REQUESTS
            assert after.fail.count == 0
            with report.open() as lines:
                (row,) = csv.DictReader(lines)
            assert int(row["Concurrency"]) == concurrency
            stages = ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output")
            assert 0 < sum(int(row[stage]) for stage in stages) <= int(row["p99 latency"])


def test_streaming(perf_analyzer: list[str], server: LaunchedServer) -> None:
    with RawClient(server.address) as client:
        before = _statistics(client)
        _run(
            perf_analyzer,
            server,
            "--streaming",
            "--async",
            "--concurrency-range",
            "4",
            "--request-count",
            str(REQUESTS),
        )
        after = _statistics(client)
        assert after.success.count - before.success.count == REQUESTS
        assert after.fail.count == before.fail.count


def test_one_run_over_the_whole_range(perf_analyzer: list[str], server: LaunchedServer, tmp_path: Path) -> None:
    """The form that people type; perf_analyzer decides how many windows it takes until it finds the figures stable."""
    report = tmp_path / "report.csv"
    with RawClient(server.address) as client:
        before = _statistics(client)
        _run(perf_analyzer, server, "--concurrency-range", "1:8", "--measurement-interval", "250",
             "--stability-percentage", "999", "-f", str(report))  # fmt: skip
        with report.open() as lines:
            assert sorted(int(row["Concurrency"]) for row in csv.DictReader(lines)) == list(range(1, 9))
        assert _statistics(client).fail.count == before.fail.count


def _statistics(client: RawClient):  # type: ignore[no-untyped-def]
    return client.call("ModelStatistics", name="vowels_torch").model_stats[0].inference_stats


def _run(perf_analyzer: list[str], server: LaunchedServer, *flags: str) -> None:
    command = [*perf_analyzer, "-m", "vowels_torch", "-i", "grpc", "-u", server.address, "--shape", "x:20,12", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error" not in done.stderr.lower(), done.stderr
