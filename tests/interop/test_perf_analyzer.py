"""The field's load generator against every backend: no error, and the server counts what it says to have sent."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from serving import backends
from serving.launch import LaunchedServer
from tests.support.perf_analyzer import Driven, drive
from tests.support.trained import Trained

REQUESTS = 200


@pytest.mark.parametrize("backend", backends.PREFERENCE)
def test_concurrency_one_to_eight(backend: str, perf_analyzer: list[str], vowels: Trained, tmp_path: Path) -> None:
    """One and eight with each backend; what lies between is the matter of the queue before them, and shown with the first."""
    report = tmp_path / "report.csv"
    with LaunchedServer(vowels.repository, "--backend", backend) as server:
        for concurrency in range(1, 9) if backend == backends.PREFERENCE[0] else (1, 8):
            driven = _vowels(perf_analyzer, server, "--concurrency-range", str(concurrency), "--request-count",
                             str(REQUESTS), "-f", str(report))  # fmt: skip
            assert (driven.succeeded, driven.failed) == (REQUESTS, 0)
            with report.open() as lines:
                (row,) = csv.DictReader(lines)
            assert int(row["Concurrency"]) == concurrency
            stages = ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output")
            assert 0 < sum(int(row[stage]) for stage in stages) <= int(row["p99 latency"])


@pytest.mark.parametrize("streaming", [(), ("--streaming",)], ids=["unary", "streaming"])
def test_many_in_flight(perf_analyzer: list[str], on_each_edge: LaunchedServer, streaming: tuple[str, ...]) -> None:
    driven = _vowels(perf_analyzer, on_each_edge, *streaming, "--async", "--concurrency-range", "32", "--request-count",
                     str(REQUESTS))  # fmt: skip
    assert (driven.succeeded, driven.failed) == (REQUESTS, 0)


def test_one_run_over_the_whole_range(perf_analyzer: list[str], server: LaunchedServer, tmp_path: Path) -> None:
    """The form that people type; perf_analyzer decides how many windows it takes until it finds the figures stable."""
    report = tmp_path / "report.csv"
    driven = _vowels(perf_analyzer, server, "--concurrency-range", "1:8", "--measurement-interval", "250",
                     "--stability-percentage", "999", "-f", str(report))  # fmt: skip
    with report.open() as lines:
        assert sorted(int(row["Concurrency"]) for row in csv.DictReader(lines)) == list(range(1, 9))
    assert driven.failed == 0


def _vowels(perf_analyzer: list[str], server: LaunchedServer, *flags: str) -> Driven:
    return drive(perf_analyzer, server, "vowels_torch", "--shape", "x:20,12", *flags)
