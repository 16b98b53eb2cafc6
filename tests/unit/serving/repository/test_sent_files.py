"""Files that clients send: where they may go, and what is left of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from serving.errors import InvalidRequest
from serving.repository import sent_files


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are written to."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "path", ["1/model.onnx", "12/model.savedmodel/variables/a", "labels.txt", "1/.hidden", "1/ä ö", "1/..a", "1/a..b/c"]
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
