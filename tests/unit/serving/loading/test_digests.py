"""What identifies files by their contents, without reading them again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.loading import digests
from serving.loading.digests import known_digest


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
