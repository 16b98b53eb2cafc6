"""What identifies files by their contents, without reading them again and again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving.loading import digests
from serving.loading.digests import folder_digest, known_digest


def test_files_that_have_not_changed_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    read = digests.files_digest
    monkeypatch.setattr(digests, "files_digest", lambda files: reads.append(files) or read(files))
    (file := tmp_path / "model.onnx").write_bytes(b"a network")
    first = known_digest({file: "model.onnx"})
    assert known_digest({file: "model.onnx"}) == first
    assert len(reads) == 1
    assert known_digest({file: "another name"}) != first
    file.write_bytes(b"another network")
    assert known_digest({file: "model.onnx"}) != first


def test_a_file_that_has_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        known_digest({tmp_path / "none": "none"})


def test_of_a_folder_every_plain_file_counts_but_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "model.savedmodel").mkdir()
    for name in ("model.onnx", "weights.bin", "model.savedmodel/saved_model.pb"):
        (tmp_path / name).write_bytes(name.encode())
    others = [tmp_path / "model.savedmodel"]
    whole, part = folder_digest(tmp_path), folder_digest(tmp_path, without=others)
    os.mkfifo(tmp_path / "pipe")
    assert (folder_digest(tmp_path), folder_digest(tmp_path, without=others)) == (whole, part)
    (tmp_path / "model.savedmodel" / "saved_model.pb").write_bytes(b"changed")
    assert folder_digest(tmp_path) != whole
    assert folder_digest(tmp_path, without=others) == part
    (tmp_path / "weights.bin").write_bytes(b"changed")
    assert folder_digest(tmp_path, without=others) != part
