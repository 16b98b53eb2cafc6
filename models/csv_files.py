"""Reads a series in CSV: a header, then one row a step, oldest first, at equal distances in time.

Nothing is ever filled in. A missing value or a gap in time is refused by its line, because only the owner of the data
knows what belongs there, and a network learns whatever is put there instead.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.cells import SHOWN, number

MISSING = {"", "?", "-", "na", "n/a", "nan", "null", "none"}
SLACK = 1e-3  # of a step: how far times that were rounded when they were written may be off
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CSVError(ValueError):
    """A file that no series can be read from; the message starts with the file and, where there is one, the line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """The columns asked for, each float32 `[rows]`, and when each row was.

    `times` are the texts in the file. `step` is the distance of two rows: in seconds where `days` (int64 `[rows]`, the
    day of the year, 1 to 366) says that times are dates; in the column's own unit where `days` is None.
    """

    path: Path
    times: tuple[str, ...]
    columns: Mapping[str, npt.NDArray[np.float32]]
    days: npt.NDArray[np.int64] | None
    step: float

    def __len__(self) -> int:
        return len(self.times)


@dataclasses.dataclass(frozen=True)
class _Row:
    line: int
    cells: Sequence[str]


def read_csv(path: Path, columns: Sequence[str], time: str) -> Series:
    """Reads `columns` of a file in UTF-8 whose cells are parted by commas; `time` names the column of the time.

    A time is a number, or a date as 2012-01-31, 2012/01/31 or 2012-01-31 14:00:00 (with +01:00 or Z behind it, or not):
    the first row decides. Raises `CSVError` for what cannot be read and `OSError` when there is no such file.
    """
    header, rows = _read(path)
    places = {}
    for name in (*columns, time):
        if header.count(name) != 1:
            wrong = f"stands {header.count(name)} times in the header" if name in header else "is not there"
            raise CSVError(f"{path}:1: the column {name!r} {wrong}; the columns are {', '.join(header)}")
        places[name] = header.index(name)
    values: dict[str, list[float]] = {name: [] for name in columns}
    moments: list[float | datetime] = []
    for row in rows:
        if len(row.cells) != len(header):
            raise CSVError(f"{path}:{row.line}: the row has {len(row.cells)} cells; the header has {len(header)}")
        for name in columns:
            values[name].append(_value(path, row.line, name, row.cells[places[name]]))
        try:
            moments.append(_moment(row.cells[places[time]], moments[0] if moments else None))
        except ValueError as error:
            raise CSVError(f"{path}:{row.line}: column {time!r} {error}") from None
    texts = tuple(row.cells[places[time]] for row in rows)
    dates = [moment for moment in moments if isinstance(moment, datetime)]
    seconds = [(m - EPOCH).total_seconds() if isinstance(m, datetime) else m for m in moments]
    return Series(
        path=path,
        times=texts,
        columns={name: np.array(numbers, np.float32) for name, numbers in values.items()},
        days=np.array([date.timetuple().tm_yday for date in dates], np.int64) if dates else None,
        step=_step(np.array(seconds), bool(dates), [f"{path}:{row.line}: column {time!r}" for row in rows], texts),
    )


def _read(path: Path) -> tuple[list[str], list[_Row]]:
    """The header and the rows that are not empty, cells without blanks around them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True, skipinitialspace=True)
        try:
            rows = [_Row(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
        except UnicodeDecodeError as error:
            raise CSVError(f"{path}: is not text in UTF-8 ({error.reason})") from error
        except csv.Error as error:
            raise CSVError(f"{path}:{reader.line_num}: is not CSV: {error}") from error
    if len(rows) < 3:
        raise CSVError(f"{path}: holds {len(rows)} lines; a header and at least two rows are needed")
    header = list(rows[0].cells)
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise CSVError(f"{path}:1: the header is {header[0]!r}; columns must be parted by commas")
    return header, rows[1:]


def _value(path: Path, line: int, column: str, cell: str) -> float:
    if cell.lower() in MISSING:
        raise CSVError(
            f"{path}:{line}: column {column!r} has no value ({cell!r}); every cell must hold a number: fill it in, "
            "or keep only the rows before or after it"
        )
    try:
        return number(cell)
    except ValueError as error:
        raise CSVError(f"{path}:{line}: column {column!r} {error}") from None


def _moment(cell: str, first: float | datetime | None) -> float | datetime:
    """A number or a date, whichever the first row has; the `ValueError` goes on after the column's name."""
    if not isinstance(first, datetime):
        try:
            return number(cell)
        except ValueError:
            if first is not None:
                raise
    try:
        date = datetime.fromisoformat(cell.replace("/", "-"))
    except ValueError:
        allowed = "a date as 2012-01-31 or 2012-01-31 14:00" if first else "a number nor a date as 2012-01-31 14:00"
        raise ValueError(f"is {cell[:SHOWN]!r}, which is {'not' if first else 'neither'} {allowed}") from None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _step(moments: npt.NDArray[np.float64], dates: bool, places: Sequence[str], texts: Sequence[str]) -> float:
    """The distance of neighbouring rows. Raises `CSVError` for the first row that does not follow the one before it."""
    distances = np.diff(moments)
    usual = float(np.sort(distances)[len(distances) // 2])
    for row in np.flatnonzero((np.abs(distances - usual) > SLACK * abs(usual)) | (distances <= 0)).tolist():
        place, text, previous = places[row + 1], texts[row + 1], texts[row]
        if distances[row] == 0:
            raise CSVError(f"{place} is {text!r}, as in the row before it; every time may stand there once")
        if distances[row] < 0:
            raise CSVError(f"{place} is {text!r}, before the {previous!r} above it; sort the rows, the oldest first")
        raise CSVError(
            f"{place} is {text!r}, {_distance(distances[row], dates)} after the {previous!r} above it, where "
            f"{_distance(usual, dates)} is usual; all rows must be equally far apart: fill the gap, or keep only one side"
        )
    return usual


def _distance(difference: float, dates: bool) -> str:
    if not dates:
        return f"{difference:g}"
    for unit, seconds in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if difference % seconds == 0:
            count = difference / seconds
            return f"{count:g} {unit if count != 1 else unit[:-1]}"
    return f"{difference:g} seconds"
