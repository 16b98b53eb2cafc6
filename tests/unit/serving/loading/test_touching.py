"""Rows that were seen to touch each other are known of the files, at every later load."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.backends.base import Candidate
from serving.loading.touching import Touching
from serving.repository.folders import VersionFolder

ONNX = Candidate("onnx_runtime", "cpu", 1)
FOUND = "rows of model 'm' version 1 touch each other: by 0.5"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VersionFolder:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "m" / "1"
    path.mkdir(parents=True)
    (path / "model.onnx").write_bytes(b"a graph")
    return VersionFolder(1, path)


def test_nothing_is_known_of_files_that_nobody_has_watched(folder: VersionFolder) -> None:
    assert Touching().find(folder, ONNX) == ""


def test_what_was_found_is_known_to_the_next_server_however_it_serves_the_files(folder: VersionFolder) -> None:
    Touching().keep(folder, ONNX, FOUND)
    assert Touching().find(folder, ONNX) == FOUND
    assert Touching().find(folder, Candidate("onnx_runtime", "cuda:0", 4)) == FOUND


def test_other_files_are_other_files(folder: VersionFolder) -> None:
    Touching().keep(folder, ONNX, FOUND)
    (folder.path / "model.onnx").write_bytes(b"another graph")
    assert Touching().find(folder, ONNX) == ""


def test_where_nothing_can_be_written_it_is_known_while_the_server_lives(
    folder: VersionFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path.parent / ".trials").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.path / "model.onnx"))
    held = Touching()
    held.keep(folder, ONNX, FOUND)
    assert held.find(folder, ONNX) == FOUND
    assert Touching().find(folder, ONNX) == ""


def test_files_that_are_gone_are_the_loaders_to_complain_about(folder: VersionFolder) -> None:
    (folder.path / "model.onnx").unlink()
    held = Touching()
    held.keep(folder, ONNX, FOUND)
    assert held.find(folder, ONNX) == ""
