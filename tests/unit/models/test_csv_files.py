"""The reader of CSV files takes what people's files hold, and says file, line and column of what it cannot take."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from models.csv_files import CSVError, read_csv

GOOD = "day,load,note,wind\n2024-02-28,1,a,0.5\n2024-02-29,2,,-1e3\n2024-03-01,3,c,7\n2024-03-02,4,d,8\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "plant.csv"
    path.write_bytes(text.encode())
    return path


def test_the_columns_asked_for(tmp_path: Path) -> None:
    series = read_csv(written(tmp_path, GOOD), ("wind", "load"), "day")
    assert list(series.columns) == ["wind", "load"]
    assert series.columns["wind"].tolist() == [0.5, -1000, 7, 8]
    assert series.columns["wind"].dtype == np.float32
    assert series.times == ("2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02")
    assert series.days is not None
    assert series.days.tolist() == [59, 60, 61, 62]
    assert series.step == 86400


@pytest.mark.parametrize(
    ("times", "step", "dates"),
    [
        (("2012/12/31", "2013/01/01", "2013/01/02"), 86400, True),
        (("2024-03-31 01:00", "2024-03-31T02:00:00", "2024-03-31 03:00"), 3600, True),
        (("2024-03-31T01:30+01:00", "2024-03-31T03:00+02:00", "2024-03-31T01:30Z"), 1800, True),
        (("0.1", "0.2", "0.30000000000000004"), 0.1, False),
        (("1700000000", "1700000060", "1700000120"), 60, False),
        (("-5", "0", "5"), 5, False),
    ],
)
def test_times(tmp_path: Path, times: tuple[str, ...], step: float, dates: bool) -> None:
    series = read_csv(written(tmp_path, "t,x\n" + "".join(f"{time},1\n" for time in times)), ("x",), "t")
    assert series.step == pytest.approx(step)
    assert (series.days is not None) == dates


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    """A byte order mark, CR LF, quotes, blanks, empty lines and a last row of nothing but commas."""
    text = '\ufeff"day", load\r\n"1", " 2.5"\r\n\r\n2,3\r\n3,4\r\n,\r\n'
    assert read_csv(written(tmp_path, text), ("load",), "day").columns["load"].tolist() == [2.5, 3, 4]


@pytest.mark.parametrize(
    ("find", "replacement", "message"),
    [
        ("load", "loads", ":1: the column 'load' is not there; the columns are day, loads, note, wind"),
        ("note", "wind", ":1: the column 'wind' stands 2 times in the header"),
        ("-02-29,2,", "-02-29,two,", ":3: column 'load' is 'two', which is no number"),
        ("-02-29,2,", "-02-29,1_000,", ":3: column 'load' is '1_000', which is no number"),
        ("-02-29,2,", '-02-29,"1,5",', ":3: column 'load' is '1,5', which is no number"),
        ("-02-29,2,", "-02-29,,", ":3: column 'load' has no value (''); every cell must hold a number: fill it in"),
        ("-02-29,2,", "-02-29,NaN,", ":3: column 'load' has no value ('NaN')"),
        ("-02-29,2,", "-02-29,n/a,", ":3: column 'load' has no value ('n/a')"),
        ("-02-29,2,", "-02-29,inf,", ":3: column 'load' is inf, which float32 cannot hold"),
        ("-02-29,2,", "-02-29,1e39,", ":3: column 'load' is 1e39, which float32 cannot hold"),
        (",,-1e3", ",-1e3", ":3: the row has 3 cells; the header has 4"),
        ("2024-02-29", "", ":3: column 'day' is '', which is not a date as 2012-01-31 or 2012-01-31 14:00"),
        ("2024-02-29", "2024-02-30", ":3: column 'day' is '2024-02-30', which is not a date"),
        ("2024-02-29", "60", ":3: column 'day' is '60', which is not a date"),
        ("2024-02-28", "28.2.2024", ":2: column 'day' is '28.2.2024', which is neither a number nor a date as"),
        ("2024-02-28", "1", ":3: column 'day' is '2024-02-29', which is no number"),
        ("2024-02-29", "2024-02-28", ":3: column 'day' is '2024-02-28', as in the row before it"),
        ("2024-03-01", "2024-02-27", ":4: column 'day' is '2024-02-27', before the '2024-02-29' above it; sort"),
        (
            "2024-03-02",
            "2024-03-04",
            ":5: column 'day' is '2024-03-04', 3 days after the '2024-03-01' above it, where 1 day is usual; "
            "all rows must be equally far apart: fill the gap",
        ),
        ("2024-03-02", "2024-03-01 14:00", ":5: column 'day' is '2024-03-01 14:00', 14 hours after the '2024-03-01'"),
        ("2024-02-29,2,,-1e3", '"2024-02-29,2', ":5: is not CSV: unexpected end of data"),
        ("day,load,note,wind", "day;load;note;wind", ":1: the header is 'day;load;note;wind'; columns must be parted"),
        (GOOD, "", ": holds 0 lines; a header and at least two rows are needed"),
        (GOOD, "day,load,wind\n1,2,3\n", ": holds 2 lines; a header and at least two rows are needed"),
    ],
)
def test_what_cannot_be_learnt_from_is_named(tmp_path: Path, find: str, replacement: str, message: str) -> None:
    assert GOOD.count(find) == 1
    path = written(tmp_path, GOOD.replace(find, replacement))
    with pytest.raises(CSVError, match="^" + re.escape(f"{path}{message}")):
        read_csv(path, ("load", "wind"), "day")


def test_numbers_with_a_gap(tmp_path: Path) -> None:
    with pytest.raises(CSVError, match=re.escape("column 't' is '9', 6 after the '3' above it, where 1 is usual")):
        read_csv(written(tmp_path, "t,x\n1,1\n2,1\n3,1\n9,1\n10,1\n"), ("x",), "t")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    path.write_bytes(b"day,load\n1,\xff\n2,3\n")
    with pytest.raises(CSVError, match=r"plant\.csv: is not text in UTF-8"):
        read_csv(path, ("load",), "day")
