"""Files that clients send: where they may go, and what is left of them."""

from __future__ import annotations

import errno
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import InvalidRequest
from serving.repository import sent_files


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Where they are written to."""
    tempfile.tempdir, before = str(tmp_path), tempfile.tempdir
    yield tmp_path
    tempfile.tempdir = before


@pytest.mark.parametrize(
    "path",
    [
        "1/model.onnx",
        "12/model.savedmodel/variables/a",
        "labels.txt",
        "names of it.txt",
        "1/.hidden",
        "1/ä ö",
        "1/..a",
        "1/a..b/c",
    ],
)
def test_where_files_may_go(path: str, temporary: Path) -> None:
    made = sent_files.write("m", {path: b"content"})
    assert made.repository.path.parent == temporary
    assert made.repository.models() == ["m"]
    assert (made.repository.path / "m" / path).read_bytes() == b"content"
    made.discard()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "1",
        "1/",
        "/1/a",
        "0/a",
        "01/a",
        "-1/a",
        "+1/a",
        "x/a",
        "²/a",
        "1 /a",
        "config.pbtxt",
        "labels.txt/a",
        ".labels.txt",
        "\\labels.txt",
        "a\nb.txt",
        "1/..",
        "1/../a",
        "1/../../a",
        "1/a/../../../b",
        "../1/a",
        "./1/a",
        "1/.",
        "1/./a",
        "1//a",
        "1/a/",
        "//etc/a",
        "1/a\x00b",
        "1/a\nb",
        "1/a\\..\\b",
        "C:\\1\\a",
    ],
)
def test_paths_that_lead_elsewhere(path: str, temporary: Path) -> None:
    """Nothing at all is written then, be the other paths what they should."""
    with pytest.raises(InvalidRequest, match="names no file of a version"):
        sent_files.write("m", {"1/model.onnx": b"x", path: b"x"})
    assert list(temporary.iterdir()) == []


def test_a_disk_that_is_full_is_told_and_nothing_is_left(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write_bytes(path: Path, content: bytes) -> int:
        written.append(path.name)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.touch()
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match=f"cannot be written to {temporary}: No space left on device; .*TMPDIR"):
        sent_files.write("m", {"1/a": b"x", "1/b": b"x"})
    assert written == ["a", "b"]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (("1/a", "1/a/b"), "'file:1/a/b' cannot become a file beside the others: File exists"),
        (("1/a/b", "1/a"), "'file:1/a' cannot become a file beside the others: Is a directory"),
        (("1/a", f"1/{'b' * 300}"), "cannot become a file beside the others: File name too long"),
    ],
)
def test_files_that_contradict_each_other_or_have_impossible_names(
    paths: tuple[str, str], why: str, temporary: Path
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        sent_files.write("m", dict.fromkeys(paths, b"x"))
    assert list(temporary.iterdir()) == []


def test_what_a_killed_server_has_left_is_swept_and_what_another_uses_is_not(temporary: Path) -> None:
    ours = sent_files.write("m", {"1/model.onnx": b"x"})
    left = temporary / f"{sent_files.PREFIX}left"
    (left / "m" / "1").mkdir(parents=True)
    (left / "m" / "1" / "model.onnx").write_bytes(b"x")
    (temporary / "elsewhere").mkdir()
    (temporary / f"{sent_files.PREFIX}link").symlink_to("elsewhere")
    (temporary / f"{sent_files.PREFIX}file").write_text("no folder")
    assert sent_files.sweep() == [left]
    assert (ours.repository.path / "m/1/model.onnx").read_bytes() == b"x"
    assert (temporary / "elsewhere").is_dir()
    ours.discard()
    assert sent_files.sweep() == []


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    swept = []

    def late(folder: int, how: int) -> None:
        monkeypatch.undo()
        swept.extend(sent_files.sweep())
        lock(folder, how)

    monkeypatch.setattr(fcntl, "flock", late)
    made = sent_files.write("m", {"1/a": b"x"})
    assert len(swept) == 1
    assert [path.name for path in made.repository.path.rglob("a")] == ["a"]
    made.discard()


def test_a_file_system_without_locks_is_told(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(folder: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    made = sent_files.write("m", {"1/a": b"x"})
    assert sent_files.sweep() == []
    assert (made.repository.path / "m/1/a").exists()
    made.discard()


def test_a_read_only_system_has_nothing_to_remove_and_takes_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without a folder for temporary files."""

    def nowhere() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", nowhere)
    assert sent_files.sweep() == []
    with pytest.raises(OSError, match=r"cannot be written: No usable temporary directory .* variable TMPDIR"):
        sent_files.write("m", {"1/model.onnx": b"content"})
