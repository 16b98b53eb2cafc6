"""From a series to examples of forecasts: windows to learn from, the newest rows to be tested on, never mixed.

The network reads one row a step and says after every row what the target will be. The test is one long sequence that
begins before the test part. Its first rows are not scored; they only warm the state up, as in a stream that has been
running for a while.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models import baselines
from models.csv_files import Series
from models.examples import Array, Examples

SAMPLES = 8
OVERLAP = 4  # windows that hold the same row
SEASON = {
    "day_of_year_sine": "sin(2 pi d / 365.25), d = day of the year, 1 January = 1",
    "day_of_year_cosine": "cos(2 pi d / 365.25), d = day of the year, 1 January = 1",
}


class ForecastError(ValueError):
    """Something asked of a series that it cannot give; the message says what, its value and what is allowed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """`target` is foretold as many steps ahead as `horizons` say, from the `features` of every row so far.

    `day_of_year` adds sine and cosine of each row's day of the year behind the features, and the climatology to the
    baselines. A network learns from windows of `history` rows. `validation` and `test` are shares of all rows: the
    newest part is the test, the part before it validates. Raises `ForecastError` when a field is out of its range.
    """

    features: tuple[str, ...]
    target: str
    horizons: tuple[int, ...]
    day_of_year: bool = False
    history: int = 30
    validation: float = 0.15
    test: float = 0.15

    def __post_init__(self) -> None:
        for name in ("features", "horizons"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ForecastError(f"{name} are {','.join(map(str, values))!r}; at least one, each of them once")
        if "" in self.features:
            raise ForecastError(f"features are {','.join(self.features)!r}, one of which has no name")
        if min(self.horizons) < 1:
            raise ForecastError(f"a horizon is {min(self.horizons)}; it must be at least 1 step")
        if self.history < 1:
            raise ForecastError(f"history is {self.history}; it must be at least 1 row")
        for name in ("validation", "test"):
            if not 0 < getattr(self, name) < 1:
                raise ForecastError(f"the {name} share is {getattr(self, name)}; it must be between 0 and 1")
        if self.validation + self.test >= 1:
            raise ForecastError(
                f"the validation share {self.validation} and the test share {self.test} leave nothing to learn from; "
                "together they must be below 1"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the file that are read beside the time."""
        return tuple(dict.fromkeys((*self.features, self.target)))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the network's features, in their order."""
        return (*self.features, *SEASON) if self.day_of_year else self.features

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the network's outputs, in their order: target+steps."""
        return tuple(f"{self.target}+{horizon}" for horizon in self.horizons)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """A series cut for a forecast; `refit` are windows of everything before the test part.

    `answers` holds what each baseline answers to `test`, in the form in which a network does.
    """

    training: Examples
    validation: Examples
    refit: Examples
    test: Examples
    samples: tuple[Array, ...]
    answers: Mapping[str, Array]
    facts: Mapping[str, Any]


def cut(series: Series, forecast: Forecast) -> Parts:
    """Training windows, validation and test of `series`. No target of one part is a row of a later part.

    Raises `ForecastError` when the series is too short, or has no dates where the day of the year is asked for.
    """
    validation_begin, test_begin = _borders(series, forecast)
    x = features(series, forecast)
    wanted = _targets(series.columns[forecast.target], forecast.horizons)

    def examples(begin: int, first: int, end: int, before: int) -> tuple[Array, Array]:
        """Rows `begin` to `end` and their targets; NaN for rows before `first`, and for targets from row `before` on."""
        rows, targets = np.arange(begin, end), wanted[begin:end].copy()
        targets[rows < first] = np.nan
        targets[rows[:, None] + np.array(forecast.horizons) >= before] = np.nan
        return x[begin:end], targets

    def windows(end: int) -> Examples:
        """Overlapping windows of the rows before `end`; the last row of the newest one still has a target there."""
        last = end - min(forecast.horizons) - forecast.history
        starts = sorted({0, *range(last, -1, -max(1, forecast.history // OVERLAP))})
        cases = [examples(start, start, start + forecast.history, end) for start in starts]
        return Examples(*map(list, zip(*cases, strict=True)))

    warm = {begin: max(0, begin - forecast.history) for begin in (validation_begin, test_begin)}
    validation = examples(warm[validation_begin], validation_begin, test_begin, test_begin)
    test = examples(warm[test_begin], test_begin, len(series), len(series))
    return Parts(
        training=windows(validation_begin),
        validation=Examples([validation[0]], [validation[1]]),
        refit=windows(test_begin),
        test=Examples([test[0]], [test[1]]),
        samples=_samples(x[test_begin:], forecast.history),
        answers={name: y[warm[test_begin] :] for name, y in _baselines(series, forecast, test_begin).items()},
        facts={
            name: {"rows": end - begin, "first": series.times[begin], "last": series.times[end - 1]}
            for name, begin, end in (
                ("training", 0, validation_begin),
                ("validation", validation_begin, test_begin),
                ("refit", 0, test_begin),
                ("test", test_begin, len(series)),
            )
        },
    )


def features(series: Series, forecast: Forecast) -> npt.NDArray[np.float32]:
    """What the network reads, `[rows, features]` in raw units, in the order of `forecast.inputs`."""
    columns = [series.columns[name] for name in forecast.features]
    if forecast.day_of_year:
        angle = 2 * np.pi * _days(series) / 365.25
        columns += [np.sin(angle), np.cos(angle)]
    return np.stack(columns, axis=1).astype(np.float32)


def _days(series: Series) -> npt.NDArray[np.int64]:
    if series.days is None:
        raise ForecastError(
            f"{series.path}: the times are numbers ({series.times[0]} ...); the day of year needs dates"
        )
    return series.days


def _targets(target: npt.NDArray[np.float32], horizons: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """`[rows, horizons]`: the target so many rows later, NaN where the series ends before."""
    targets = np.full((len(target), len(horizons)), np.nan, np.float32)
    for output, horizon in enumerate(horizons):
        targets[: len(target) - horizon, output] = target[horizon:]
    return targets


def _borders(series: Series, forecast: Forecast) -> tuple[int, int]:
    """(the first row of the validation part, the first row of the test part)."""
    rows, furthest = len(series), max(forecast.horizons)
    test, validation = (round(share * rows) for share in (forecast.test, forecast.validation))
    training = rows - validation - test
    least = {"training": (training, forecast.history + furthest, f"the history of {forecast.history} rows and ")}
    least |= {"validation": (validation, furthest + 1, ""), "test": (test, furthest + 1, "")}
    for name, (found, needed, history) in least.items():
        if found < needed:
            raise ForecastError(
                f"{series.path}: the {name} part has {found} of {rows} rows; {history}the horizon of {furthest} need "
                f"at least {needed}: give more rows, another share{' or a shorter history' if history else ''}"
            )
    return training, training + validation


def _baselines(series: Series, forecast: Forecast, test_begin: int) -> dict[str, npt.NDArray[np.float32]]:
    """Answers to every row of the series, `[rows, horizons]`, learnt from nothing but rows before the test part."""
    target = series.columns[forecast.target]
    found = {"persistence": baselines.persistence(target, forecast.horizons)}
    if forecast.day_of_year:
        days = _days(series)
        normal = baselines.by_day_of_year(target[:test_begin], days[:test_begin])
        if np.isnan(normal).any():
            raise ForecastError(
                f"{series.path}: the {test_begin} rows before the test part know nothing of day "
                f"{int(np.isnan(normal).argmax()) + 1} of the year; the day of year needs at least a whole year there"
            )
        found["climatology"] = baselines.climatology(normal, days, forecast.horizons)
    return found


def _samples(x: npt.NDArray[np.float32], longest: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Windows of the test part, of lengths from short to `longest`, spread over it."""
    lengths = np.unique(np.linspace(1, min(longest, len(x)), SAMPLES).round().astype(int))
    ends = np.linspace(lengths[0], len(x), len(lengths)).round().astype(int)
    return tuple(x[end - length : end] for length, end in zip(lengths, ends, strict=True))
