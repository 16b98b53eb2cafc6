"""What a disk refuses is told with what to do, and of what was being written in the repository only the repository."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from export import __main__ as command
from export.disk import told

REPOSITORY = Path("models/all")


@pytest.mark.parametrize(
    ("number", "file", "said"),
    [
        (
            errno.EROFS,
            "models/all/.export-x",
            "models/all: Read-only file system: it can only be read; name a repository on",
        ),
        (
            errno.ENOSPC,
            None,
            "models/all: No space left on device: make room there, or name a repository on another disk",
        ),
        (errno.EDQUOT, None, "models/all: Disk quota exceeded: make room there"),
        (errno.EACCES, "models/all", "models/all: Permission denied: let your user write there"),
        (errno.EACCES, "/elsewhere/w.pt", "/elsewhere/w.pt: Permission denied: let your user write there"),
    ],
)
def test_what_a_disk_refuses(number: int, file: str | None, said: str) -> None:
    sentence = told(OSError(number, os.strerror(number), file), REPOSITORY)
    assert sentence.startswith(said)
    assert sentence.endswith("; nothing was published")


def test_the_rest_is_told_as_it_is() -> None:
    assert told(OSError(errno.ENOENT, "No such file or directory", "a"), REPOSITORY).endswith("file or directory: 'a'")
    assert told(OSError("in words"), REPOSITORY) == "in words"


def test_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(options: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "ro" / ".export-x"))

    monkeypatch.setitem(command.SOURCES, "import", refused)
    line = ["import", "m.onnx", "--name", "m", "--repository", str(tmp_path / "ro")]
    assert command.main(line) == command.REFUSED
    assert f"lstm-export: {tmp_path / 'ro'}: Read-only file system: it can only be read;" in capsys.readouterr().err
