from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator

import pytest

from benchmarks.peers import perf_analyzer
from benchmarks.peers.errors import PeerError

REPORT = """\
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,p50 latency,p90 latency,p95 latency,p99 latency
8,399.328,8,800,4617,7000,8000,9249
"""


def test_latencies_of_its_report() -> None:
    assert perf_analyzer.latencies(REPORT) == (4.617, 9.249)


@pytest.mark.parametrize("text", ["", REPORT.replace("p99", "p98"), REPORT + REPORT.splitlines()[1] + "\n"])
def test_another_report_is_refused(text: str) -> None:
    with pytest.raises(PeerError, match="not got one row of latencies"):
        perf_analyzer.latencies(text)


@dataclasses.dataclass
class CountingServer:
    """Says how many requests it has answered."""

    pid: int
    counted: int | None
    name: str = "it"

    def answered(self) -> int | None:
        return self.counted


@pytest.fixture
def idle() -> Iterator[subprocess.Popen[bytes]]:
    """A process that neither does anything nor exits."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_analyzer, "_IDLE_SECONDS", 0.05)
    monkeypatch.setattr(perf_analyzer, "_IDLE_CORES", 0.5)


def ended(process: subprocess.Popen[bytes], server: CountingServer, awaited: int) -> bool:
    return perf_analyzer._ended(process, server, awaited)  # type: ignore[arg-type]


def test_a_run_that_exits_has_ended(idle: subprocess.Popen[bytes]) -> None:
    assert ended(subprocess.Popen(["true"]), CountingServer(idle.pid, 0), 10)


def test_a_run_that_does_not_exit_is_over_when_all_is_answered(idle: subprocess.Popen[bytes]) -> None:
    assert not ended(idle, CountingServer(idle.pid, 10), 10)


def test_a_run_that_waits_for_answers_fails_in_the_end(
    idle: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perf_analyzer, "_SECONDS", 0.2)
    with pytest.raises(PeerError, match=r"not got its answers after 0\.2 s"):
        ended(idle, CountingServer(idle.pid, 9), 10)


def test_a_server_that_counts_nothing_cannot_be_measured(idle: subprocess.Popen[bytes]) -> None:
    with pytest.raises(PeerError, match="no ModelStatistics"):
        ended(idle, CountingServer(idle.pid, None), 10)
