"""What lies at a path, told without opening it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from serving.errors import RepositoryError
from serving.machine import files


def test_a_plain_file_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert [files.is_plain(tmp_path / name) for name in ("file", "link", "none", "file/none")] == [
        True,
        True,
        False,
        False,
    ]


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "device").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, said in {
            "folder": "is a folder, no plain file",
            "pipe": "is a named pipe, no plain file",
            "socket": "is a socket, no plain file",
            "device": "is a device, no plain file",
            "link": "is a symbolic link to nowhere, which is not there",
            "circle": "cannot be looked at: Too many levels of symbolic links",
            "x" * 300: "cannot be looked at: File name too long",
            "\0": "cannot be looked at: embedded null byte",
        }.items():
            with pytest.raises(RepositoryError, match=said):
                files.is_plain(tmp_path / name)


def test_what_may_not_be_read_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.check_readable(tmp_path)
    (tmp_path / "m").write_bytes(b"abc")
    assert files.beginning(tmp_path / "m", 2) == b"ab"
    with pytest.raises(RepositoryError, match=r"gone cannot be read: No such file or directory$"):
        files.beginning(tmp_path / "gone", 2)

    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)  # for root nothing is forbidden
    with pytest.raises(
        RepositoryError, match=r"cannot be read: Permission denied; let the user that .* chmod -R a\+rX"
    ):
        files.check_readable(tmp_path)
