"""Files that clients send: where they may go, and what is left of them."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest
from serving.repository import sent_files

TEXT = pb.ModelRepositoryParameter(string_param="{}")
CONTENT = pb.ModelRepositoryParameter(bytes_param=b"x")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are written to."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("sent", "config", "files"),
    [
        ({}, None, {}),
        ({"config": TEXT}, "{}", {}),
        ({"config": TEXT, "file:1/a": CONTENT, "file:2/b/c": CONTENT}, "{}", {"1/a": b"x", "2/b/c": b"x"}),
        ({"config": TEXT, "file:": CONTENT}, "{}", {"": b"x"}),  # refused when it is to be written
    ],
)
def test_parameters(sent: Mapping[str, pb.ModelRepositoryParameter], config: str | None, files: object) -> None:
    assert sent_files.parameters(sent) == (config, files)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"colour": TEXT}, "unrecognized load parameter 'colour'; known are config and file:VERSION/PATH"),
        ({"FILE:1/a": CONTENT}, "unrecognized load parameter 'FILE:1/a'"),
        ({"config": CONTENT}, "invalid value type for load parameter 'config', expected string_param"),
        ({"config": pb.ModelRepositoryParameter(bool_param=True)}, "expected string_param"),
        ({"config": TEXT, "file:1/a": TEXT}, "load parameter 'file:1/a', expected bytes_param"),
        ({"config": TEXT, "file:1/a": pb.ModelRepositoryParameter(int64_param=1)}, "expected bytes_param"),
        ({"file:1/a": CONTENT}, "'config' must be sent along with files"),
    ],
)
def test_parameters_that_are_refused(sent: Mapping[str, pb.ModelRepositoryParameter], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        sent_files.parameters(sent)


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
