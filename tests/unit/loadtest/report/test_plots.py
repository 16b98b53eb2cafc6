"""Axes hold what is drawn along them."""

from __future__ import annotations

import math

import pytest

from loadtest.report import plots


@pytest.mark.parametrize("values", [[0.3, 700.0], [5.0, 5.0], [1.0, 1.1], [1e-3, 1e5], [3.1, 3.3]])
def test_axes_hold_their_values(values: list[float]) -> None:
    for axis in (plots.log_axis("a", values), plots.linear_axis("a", values)):
        assert axis.low <= min(values) <= max(values) <= axis.high
        assert len(axis.ticks) >= 2
        assert [axis.share(axis.low), axis.share(axis.high)] == [0, 1]


def test_nines() -> None:
    assert [plots.nines(p) for p in (0, 90, 99, 100)] == pytest.approx([0, 1, 2, math.inf])
    assert plots.nines_axis("p", 50).ticks[-1] == (1.0, "90")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 100.0], ["0", "20", "40", "60", "80", "100"]),
        ([7.0], ["0", "2", "4", "6", "8"]),
        ([0.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
    ],
)
def test_a_linear_axis_has_round_numbers_from_zero(values: list[float], labels: list[str]) -> None:
    assert [label for _, label in plots.linear_axis("a", values).ticks] == labels


def test_a_logarithmic_axis_has_fewer_ticks_the_longer_it_is() -> None:
    assert [label for _, label in plots.log_axis("a", [1.0, 20.0]).ticks] == ["1", "2", "5", "10", "20"]
    assert [label for _, label in plots.log_axis("a", [1.0, 5000.0]).ticks] == ["1", "10", "100", "1000"]


def test_values_outside_of_an_axis_stand_at_its_ends() -> None:
    axis = plots.Axis("a", 10.0, 1000.0, [], logarithmic=True)
    assert [axis.share(value) for value in (1, 10, 100, 1000, 5000)] == pytest.approx([0, 0, 0.5, 1, 1])


def test_a_plot_has_a_line_for_each_series_and_a_mark_for_a_lone_point() -> None:
    x, y = plots.linear_axis("x < 1", [0, 2]), plots.linear_axis("y", [0, 2])
    two = plots.plot("t", x, y, [plots.Series("a", "red", [(0, 0), (2, 2)]), plots.Series("b", "blue", [(1, 1)])])
    assert two.count("<path") == two.count("<circle") == 1
    assert two.count("<li>") == 2
    assert "b: 1 at 1" in two
    assert "x &lt; 1" in two
    alone = plots.plot("t", x, y, [plots.Series("a", "red", [(0, 0), (2, 2)], marks=True)])
    assert alone.count("<circle") == 2
    assert "<li>" not in alone
