"""Arrays by name from `.npz`, cases in turn from `.ts`, and the sentence for anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtest import data_files
from loadtest.errors import UsageError

TS = "# made up\n@problemName p\n@data\n# a comment\n1,2,3:4,5,6:a\n\n7.5:8.5:b\n"


def test_arrays_have_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((2, 3)), lengths=np.array([3, 1]))
    arrays = data_files.read(tmp_path / "a.npz")
    assert arrays.keys() == {"x", "lengths"}
    np.testing.assert_array_equal(arrays["lengths"], [3, 1])


def test_cases_are_steps_by_channels_and_called_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(TS)
    arrays = data_files.read(tmp_path / "a.ts")
    assert list(arrays) == ["0", "1"]
    np.testing.assert_array_equal(arrays["0"], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(arrays["1"], [[7.5, 8.5]])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.npz", None, r"a\.npz does not exist"),
        ("a.ts", None, r"a\.ts does not exist"),
        ("a.npz", b"PK none", r"a\.npz is not a readable \.npz file"),
        ("a.ts", b"@data\n", r"a\.ts holds no array"),
        ("a.ts", b"\xff", r"a\.ts is not text in UTF-8"),
        ("a.ts", b"@data\n1,x:2,3:a\n", r"a\.ts:2 is no case like 1\.5,1\.6:0\.2,0\.1:label \(could not convert"),
        ("a.ts", b"@data\n1,2:3:a\n", r"a\.ts:2 is no case"),  # two channels of unequal length
        ("a.ts", b"@data\n1,2,3\n", r"a\.ts:2 is no case .* \(it has no colon\)"),
    ],
)
def test_what_cannot_be_sent(name: str, content: bytes | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        data_files.read(tmp_path / name)


def test_one_nameless_array_is_not_enough(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(UsageError, match=r"holds one nameless array; --data reads \.npz files"):
        data_files.read(tmp_path / "a.npy")
