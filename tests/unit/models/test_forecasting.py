"""A series is cut by time: every target is a row of its own part, and the test follows on warm history."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import problems
from models.csv_files import Series
from models.examples import Examples
from models.forecasting import Forecast, ForecastError, cut, features

FORECAST = Forecast(features=("clock",), target="clock", horizons=(1, 3), history=10, validation=0.2, test=0.3)


def series(rows: int = 100, dates: bool = False) -> Series:
    """Every row holds its own number, so that a target tells which row it is."""
    return Series(
        path=Path("clock.csv"),
        times=tuple(map(str, range(rows))),
        columns={"clock": np.arange(rows, dtype=np.float32)},
        days=np.arange(rows) % 365 + 1 if dates else None,
        step=1.0,
    )


def rows_and_targets(examples: Examples) -> list[tuple[int, int, int]]:
    """(row, target, output) of every target that there is."""
    return [
        (int(sequence[step, 0]), int(targets[step, output]), output)
        for sequence, targets in zip(examples.sequences, examples.targets, strict=True)
        for step, output in np.argwhere(np.isfinite(targets))
    ]


def test_no_part_knows_a_later_one() -> None:
    parts = cut(series(), FORECAST)
    for examples, first, end in (
        (parts.training, 0, 50),
        (parts.validation, 50, 70),
        (parts.refit, 0, 70),
        (parts.test, 70, 100),
    ):
        found = rows_and_targets(examples)
        assert all(target == row + FORECAST.horizons[output] for row, target, output in found)
        assert {(row, output) for row, _, output in found} == {
            (row, output) for output, ahead in enumerate(FORECAST.horizons) for row in range(first, end - ahead)
        }
        assert max(sequence.max() for sequence in examples.sequences) < end


def test_validation_and_test_come_warm() -> None:
    parts = cut(series(), FORECAST)
    assert [len(parts.validation), len(parts.test)] == [1, 1]
    assert parts.validation.sequences[0][0, 0] == 40
    assert parts.test.sequences[0][[0, -1], 0].tolist() == [60, 99]
    assert np.isnan(parts.test.targets[0][:10]).all()
    assert set(parts.training.lengths) == {10}
    assert parts.facts["test"] == {"rows": 30, "first": "70", "last": "99"}


def test_baselines_answer_the_test_sequence() -> None:
    parts = cut(series(), FORECAST)
    assert parts.answers["persistence"].shape == parts.test.targets[0].shape
    np.testing.assert_array_equal(parts.answers["persistence"][:, 0], parts.test.sequences[0][:, 0])
    assert parts.answers.keys() == {"persistence"}
    year = Forecast(**{**vars(FORECAST), "day_of_year": True})
    assert cut(series(800, dates=True), year).answers.keys() == {"persistence", "climatology"}


def test_samples_are_rows_of_the_test_part_of_many_lengths() -> None:
    samples = cut(series(), FORECAST).samples
    lengths = [len(sample) for sample in samples]
    assert (lengths[0], lengths[-1], len(set(lengths))) == (1, 10, 8)
    for sample in samples:
        assert sample.min() >= 70
        assert np.diff(sample[:, 0]).tolist() == [1] * (len(sample) - 1)


def test_the_season_is_read_off_each_row() -> None:
    x = features(
        series(400, dates=True), Forecast(features=("clock",), target="clock", horizons=(1,), day_of_year=True)
    )
    assert x.dtype == np.float32
    angle = 2 * np.pi * 32 / 365.25  # 1 February
    np.testing.assert_allclose(x[31], [31, np.sin(angle), np.cos(angle)], rtol=1e-6)


def test_the_year_2015_is_the_test_of_the_weather() -> None:
    weather = problems.weather()
    assert weather.data["parts"]["test"] == {"rows": 365, "first": "2015/01/01", "last": "2015/12/31"}
    assert weather.data["parts"]["refit"]["last"] == "2014/12/31"
    units = {column["name"]: column["unit"] for column in weather.data["features"]}
    assert list(units)[:4] == ["precipitation", "temp_max", "temp_min", "wind"]
    assert list(units.values())[:4] == ["mm", "C", "C", "m/s"]
    assert weather.config.streamable


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": ("clock", "clock")}, "features are 'clock,clock'; at least one, each of them once"),
        ({"features": ("clock", "")}, "features are 'clock,', one of which has no name"),
        ({"horizons": ()}, "horizons are ''; at least one"),
        ({"horizons": (2, 2)}, "horizons are '2,2'"),
        ({"horizons": (0,)}, "a horizon is 0; it must be at least 1 step"),
        ({"history": 0}, "history is 0"),
        ({"test": 0.0}, "the test share is 0.0; it must be between 0 and 1"),
        ({"validation": float("nan")}, "the validation share is nan"),
        ({"validation": 0.5, "test": 0.5}, "leave nothing to learn from; together they must be below 1"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ForecastError, match=re.escape(message)):
        Forecast(**{**vars(FORECAST), **fields})


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        (
            20,
            {},
            "clock.csv: the training part has 10 of 20 rows; the history of 10 rows and the horizon of 3 need at least 13: "
            "give more rows, another share or a shorter history",
        ),
        (100, {"validation": 0.03}, "the validation part has 3 of 100 rows; the horizon of 3 need at least 4"),
        (100, {"test": 0.01}, "the test part has 1 of 100 rows"),
        (100, {"day_of_year": True}, "clock.csv: the times are numbers (0 ...); the day of year needs dates"),
    ],
)
def test_a_series_that_is_too_short_or_has_no_dates(rows: int, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ForecastError, match=re.escape(message)):
        cut(series(rows), Forecast(**{**vars(FORECAST), **fields}))


def test_a_season_needs_a_year() -> None:
    year = Forecast(**{**vars(FORECAST), "day_of_year": True})
    with pytest.raises(ForecastError, match="the 210 rows before the test part know nothing of day 218 of the year"):
        cut(series(300, dates=True), year)
