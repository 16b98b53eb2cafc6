from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers.load import Load
from benchmarks.peers.measured import Measured
from tests.support.peers import made_up


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], int]]:
    """Servers and rounds of every run, which come to made-up figures."""
    runs = []

    def run(bench: object, servers: list[str], loads: list[Load], rounds: int) -> Measured[Load]:
        runs.append((set(servers), rounds))
        return made_up()

    monkeypatch.setattr(command, "Bench", lambda *_: None)
    monkeypatch.setattr(command.campaign, "run", run)
    return runs


def call(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> int:
    (folder / "performance.md").write_text("# Mine\n")
    files = ["--report", str(folder / "performance.md"), "--chart", str(folder / "pictures/peers.svg")]
    monkeypatch.setattr("sys.argv", ["peers", *files, *flags])
    return command.main()


def test_a_whole_run_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_runs: list[tuple[set[str], int]]
) -> None:
    assert call(monkeypatch, tmp_path) == 0
    assert nothing_runs == [(set(command.SERVERS), 3)]
    assert "| open loop, 4000/s |" in (tmp_path / "performance.md").read_text()
    assert (tmp_path / "pictures/peers.svg").read_text().startswith("<svg ")


@pytest.mark.parametrize("part", ["--quick", "--servers Triton", "--loads tls"])
def test_a_part_of_it_is_printed_alone(
    part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, tmp_path, *part.split())
    assert (tmp_path / "performance.md").read_text() == "# Mine\n"
    assert not (tmp_path / "pictures").exists()
    assert "| open loop, 4000/s |" in capsys.readouterr().out


def test_nothing_measured_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command.campaign, "run", lambda *_: Measured(3))
    assert call(monkeypatch, tmp_path, "--quick") == 1
