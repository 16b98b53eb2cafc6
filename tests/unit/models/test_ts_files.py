"""The reader of `.ts` files takes unequal lengths and says file and line of what it cannot take."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from models import problems
from models.ts_files import TSFormatError, read_ts

HEADER = "# made up\n@problemName Two\n@timeStamps false\n@univariate false\n@dimensions 2\n@classLabel true up down\n@data\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "two.ts"
    path.write_text(text)
    return path


def test_cases_become_steps_by_channels(tmp_path: Path) -> None:
    cases = read_ts(written(tmp_path, HEADER + "1,2,3:4,5,6:up\n\n 7 : 8e-1 : down \n"))
    assert (cases.name, cases.labels, cases.channels) == ("Two", ("up", "down"), 2)
    assert cases.classes.tolist() == [0, 1]
    assert cases.sequences[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert cases.sequences[1].dtype == np.float32
    assert cases.sequences[1].shape == (1, 2)


def test_without_dimensions_the_first_case_says_them(tmp_path: Path) -> None:
    header = HEADER.replace("@dimensions 2\n", "")
    assert read_ts(written(tmp_path, header + "1:2:3:up\n")).channels == 3
    with pytest.raises(TSFormatError, match=r"two\.ts:8: 2 channels and a label, where 3"):
        read_ts(written(tmp_path, header + "1:2:3:up\n1:2:up\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "1,2:3,4\n", "8: 1 channels and a label, where 2"),
        (HEADER + "1,2:3,4:5,6:up\n", "8: 3 channels"),
        (HEADER + "1,2:3,4:left\n", "8: the label is 'left'; @classLabel names up, down"),
        (HEADER + "1,2:3:up\n", "8: the channels have between 1 and 2 steps"),
        (HEADER + "1,x:3,4:up\n", "8: channel 1, step 2 is 'x', which is no number"),
        (HEADER + "1,2:3,:up\n", "8: channel 2, step 2 is '', which is no number"),
        (HEADER + "1,2:?,4:up\n", "8: channel 2 misses the value of step 1"),
        (HEADER + "1,2:3,inf:up\n", "8: channel 2, step 2 is inf, which float32 cannot hold"),
        (HEADER + "1,2:3,1e99:up\n", "8: channel 2, step 2 is 1e99"),
        (HEADER, "7: the file ends without a case"),
        ("# nothing\n", "1: the file ends without a line @data"),
        ("", "0: the file ends without a line @data"),
        ("1,2,3:up\n", "1: '1,2,3:up' stands before @data"),
        ("@\n", "1: '@' stands before @data"),
        ("@data\n1:up\n", "1: no line @classLabel came before @data"),
        ("@timeStamps true\n", "1: time stamps are not read"),
        ("@targetLabel true\n", "1: the file holds a regression problem"),
        ("@classLabel false\n", "1: @classLabel must be true"),
        ("@classLabel true up up\n", "1: @classLabel names a class twice"),
        ("@dimensions many\n", "1: the number of dimensions is 'many'"),
    ],
)
def test_garbage_is_named_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TSFormatError, match=re.escape(f"two.ts:{message}")):
        read_ts(written(tmp_path, text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "two.ts"
    path.write_bytes(b"@problemName \xff\n")
    with pytest.raises(TSFormatError, match=r"two\.ts: is not text in UTF-8"):
        read_ts(path)


def test_the_vowels_are_in_the_package() -> None:
    problem = problems.vowels()
    assert (len(problem.training), len(problem.test), problem.outputs) == (270, 370, tuple("123456789"))
    assert (min(problem.test.lengths), max(problem.test.lengths)) == (7, 29)
    assert np.bincount(np.asarray(problem.training.targets)).tolist() == [30] * 9
