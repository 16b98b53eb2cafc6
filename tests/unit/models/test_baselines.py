"""The answers that need no network, against the same numbers worked out by hand."""

from __future__ import annotations

import numpy as np

from models import baselines, problems, scoring


def test_majority_class() -> None:
    y = baselines.majority_class(np.array([2, 0, 2, 1, 2]), 4, 3)
    assert y.tolist() == [[0, 0, 1, 0]] * 3


def test_persistence() -> None:
    assert baselines.persistence(np.array([5, 7], np.float32), (1, 3)).tolist() == [[5, 5], [7, 7]]


def test_a_day_is_the_mean_of_its_neighbours_in_every_year() -> None:
    days = np.array([1, 8, 9, 365, 100, 8])
    normal = baselines.by_day_of_year(np.array([1, 2, 4, 8, 16, 32], np.float32), days)
    assert normal.shape == (366,)
    assert normal[0] == np.mean([1, 2, 8, 32])  # 1 January: itself, both eighths and the last day of December
    assert normal[99] == normal[92] == normal[106] == 16
    assert np.isnan(normal[[91, 107]]).all()


def test_climatology_asks_for_the_day_that_is_foretold() -> None:
    normal = np.arange(1, 367, dtype=np.float32)
    y = baselines.climatology(normal, np.array([364, 365, 1, 2]), (1, 3))
    np.testing.assert_array_equal(y, np.array([[365, 2], [1, np.nan], [2, np.nan], [np.nan, np.nan]], np.float32))


def test_the_published_baselines_of_the_weather() -> None:
    """Worked out by other code, to two digits: 2.24 and 3.49 C for persistence, 3.15 C twice for the climatology."""
    weather = problems.weather()
    targets = scoring.truth(weather.test)
    assert np.isfinite(targets).sum(axis=0).tolist() == [364, 362]
    errors = {name: scoring.mean_absolute_errors(y, targets) for name, y in weather.baselines.items()}
    np.testing.assert_allclose(errors["persistence"], [2.24, 3.49], atol=0.005)
    np.testing.assert_allclose(errors["climatology"], [3.15, 3.15], atol=0.005)
