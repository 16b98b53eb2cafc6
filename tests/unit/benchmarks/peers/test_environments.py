from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.errors import PeerError


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run; a virtual environment is an empty folder."""
    run: list[list[str]] = []

    def keep(command: list[str]) -> None:
        run.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[3]).mkdir(parents=True)

    monkeypatch.setattr(environments, "_run", keep)
    return run


def test_it_is_made_once(tmp_path: Path, commands: list[list[str]]) -> None:
    for _ in range(2):
        python = environments.make(tmp_path / "peer", ["one", "two<3"], ["--no-deps", "three"])
    assert [command[-2:] for command in commands[1:]] == [["one", "two<3"], ["--no-deps", "three"]]
    assert commands[0] == [sys.executable, "-m", "venv", str(tmp_path / "peer")]
    assert commands[1][0] == str(python)


def test_it_is_made_anew_for_other_packages(tmp_path: Path, commands: list[list[str]]) -> None:
    environments.make(tmp_path / "peer", ["one==1"])
    (tmp_path / "peer/old").touch()
    environments.make(tmp_path / "peer", ["one==2"])
    assert len(commands) == 4
    assert not (tmp_path / "peer/old").exists()


def test_a_package_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeerError, match="has failed: no such package"):
        environments._run([sys.executable, "-c", "import sys; sys.exit('no such package')"])
    monkeypatch.setattr(environments, "_SECONDS", 0.1)
    with pytest.raises(PeerError, match=r"took more than 0\.1 s"):
        environments._run(["sleep", "600"])
