"""What is made of a runtime's words, and of the files that it reads."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from serving.backends.base import (
    DEVICE_LOST,
    OUT_OF_MEMORY,
    Candidate,
    artifact_bytes,
    artifact_digest,
    cuda_lost,
    first_line,
    installed_version,
    trimmed,
)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("shapes do not match", "shapes do not match"),
        ("\n\n  shapes do not match  \n  File a.py, line 3", "shapes do not match"),
        ("The following operation failed:\nTraceback:\n  input must have 3 dimensions", "input must have 3 dimensions"),
        ("Only a heading:", "Only a heading:"),
        ("", "ValueError"),
        ("a" * 400, "a" * 300 + "..."),
    ],
    ids=["one line", "a call stack", "headings", "nothing else", "nothing", "too long"],
)
def test_what_a_runtime_says_first(message: str, said: str) -> None:
    assert first_line(ValueError(message)) == said


@pytest.mark.parametrize(("length", "most", "expected"), [(3, 3, "aaa"), (4, 3, "aaa..."), (0, 3, "")])
def test_what_is_left_out_is_shown(length: int, most: int, expected: str) -> None:
    assert trimmed("a" * length, most) == expected


def test_the_size_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.savedmodel" / "variables").mkdir(parents=True)
    for name, size in (("saved_model.pb", 5), ("variables/data", 7)):
        (tmp_path / "model.savedmodel" / name).write_bytes(b"a" * size)
    assert artifact_bytes(tmp_path / "model.savedmodel") == 12
    assert artifact_bytes(tmp_path / "model.savedmodel" / "saved_model.pb") == 5
    assert artifact_bytes(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(
    ("candidate", "told"),
    [
        (Candidate("torchscript", "cpu", 4), "torchscript"),
        (Candidate("torchscript", "cuda:1", 1), "torchscript@cuda:1"),
    ],
)
def test_how_people_are_told_of_a_candidate(candidate: Candidate, told: str) -> None:
    assert str(candidate) == told


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", OUT_OF_MEMORY),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", OUT_OF_MEMORY),
        ("bfc_arena.cc BFCArena: Failed to allocate memory for requested buffer of size 8", OUT_OF_MEMORY),
        ("CUDA error: an illegal memory access was encountered", DEVICE_LOST),
        ("CUDA error: unspecified launch failure", DEVICE_LOST),
        ("CUDA error: device-side assert triggered", DEVICE_LOST),
        ("CUDNN failure: no CUDA-capable device is detected", DEVICE_LOST),
        ("CUDA error: invalid argument", ""),
        ("out of memory", ""),  # of the machine's own
        ("the index is illegal", ""),
        ("", ""),
    ],
)
def test_what_a_message_about_cuda_says_of_the_device(message: str, lost: str) -> None:
    assert cuda_lost(RuntimeError(message)) == lost


def test_the_digest_of_a_file_is_that_of_its_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"network")
    (tmp_path / "b").write_bytes(b"network")
    assert artifact_digest(tmp_path / "a") == artifact_digest(tmp_path / "b") == hashlib.sha256(b"network").hexdigest()


def test_the_digest_of_a_folder_knows_names_and_waits_at_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "data").write_bytes(b"network")
    before = artifact_digest(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    assert artifact_digest(tmp_path) == before
    (tmp_path / "variables" / "data").rename(tmp_path / "variables" / "index")
    assert artifact_digest(tmp_path) != before


def test_the_version_is_that_of_the_first_package_that_is_here() -> None:
    assert installed_version("no-such-package-anywhere", "numpy") == np.__version__
    assert installed_version("no-such-package-anywhere") == ""
