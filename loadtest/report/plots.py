"""Line plots as inline SVG, drawn by hand: nothing is fetched, and a plotting library would be the largest dependency.

Colours are CSS variables of the page, so that a plot follows the reader's light or dark scheme. Latencies stand on a
logarithmic axis, because a tail is many times the median and a linear axis would show only the tail.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 44

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Series:
    """One line: `colour` is any CSS colour; `marks` draws its points too."""

    name: str
    colour: str
    points: Sequence[Point]
    marks: bool = False


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis: `ticks` are (value, label); values outside of low..high are clamped."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, from 0 at the low end to 1."""
        scale: Callable[[float], float] = math.log if self.logarithmic else float
        value = min(max(value, self.low), self.high)
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))


def linear_axis(label: str, values: Sequence[float], *, from_zero: bool = True) -> Axis:
    """An axis of round numbers around these values."""
    low, high = (0.0 if from_zero else min(values)), max(values)
    if high <= low:
        high = low + 1.0
    step = _round_step((high - low) / 5)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    ticks = [(index * step, f"{index * step:g}") for index in range(first, last + 1)]
    return Axis(label, first * step, last * step, ticks)


def log_axis(label: str, values: Sequence[float]) -> Axis:
    """A logarithmic axis around these positive values, with ticks at 1, 2 and 5 of each decade as far as they fit."""
    low, high = min(values) / 1.15, max(values) * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    shown = [(tick, f"{tick:g}") for tick in ticks if low <= tick <= high]
    if len(shown) < 2:
        shown = [(tick, f"{tick:.3g}") for tick in (low, math.sqrt(low * high), high)]
    return Axis(label, low, high, shown, logarithmic=True)


def nines_axis(label: str, count: int) -> Axis:
    """Percentiles as nines (0, 90, 99, ...), up to what `count` measurements can tell; plot with `nines`."""
    high = max(1.0, min(5.0, math.log10(max(count, 1))))
    ticks = [(0.0, "0"), (nines(50), "50"), (1.0, "90"), (2.0, "99"), (3.0, "99.9"), (4.0, "99.99"), (5.0, "99.999")]
    return Axis(label, 0.0, high, [tick for tick in ticks if tick[0] <= high + 1e-9])


def nines(percentile: float) -> float:
    """90 -> 1, 99 -> 2, 99.9 -> 3; infinite at 100."""
    return -math.log10(1 - percentile / 100) if percentile < 100 else math.inf


def plot(title: str, x: Axis, y: Axis, lines: Sequence[Series]) -> str:
    """One `<figure>`: heading, legend (if there are several lines), axes, lines; each mark tells its figures on hover."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(_grid_line(x, y, value, label, upright=True) for value, label in x.ticks),
        *(_grid_line(x, y, value, label, upright=False) for value, label in y.ticks),
        f'<text class="axis" x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 8}">{escape(x.label)}</text>',
        f'<text class="axis" transform="translate(14 {(HEIGHT - _BOTTOM + _TOP) / 2:.0f}) rotate(-90)">'
        f"{escape(y.label)}</text>",
    ]
    for line in lines:
        points = [(_at_x(x, px), _at_y(y, py)) for px, py in line.points if px <= x.high * (1 + 1e-9)]
        if len(points) > 1:
            path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
            parts.append(f'<path d="{path}" style="stroke:{line.colour}"><title>{escape(line.name)}</title></path>')
        if line.marks or len(points) == 1:
            for (px, py), (vx, vy) in zip(points, line.points, strict=False):
                hint = escape(f"{line.name}: {vy:.4g} at {vx:.4g}")
                parts.append(
                    f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" style="fill:{line.colour}">'
                    f"<title>{hint}</title></circle>"
                )
    parts.append("</svg>")
    legend = "".join(f'<li><span style="background:{line.colour}"></span>{escape(line.name)}</li>' for line in lines)
    shown = f'<ul class="legend">{legend}</ul>' if len(lines) > 1 else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{shown}{''.join(parts)}</figure>"


def _grid_line(x: Axis, y: Axis, value: float, label: str, *, upright: bool) -> str:
    if upright:
        at, bottom = _at_x(x, value), HEIGHT - _BOTTOM
        return (
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            f'<text class="tick" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>'
        )
    at = _at_y(y, value)
    return (
        f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _at_x(axis: Axis, value: float) -> float:
    return _LEFT + axis.share(value) * (WIDTH - _LEFT - _RIGHT)


def _at_y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - axis.share(value) * (HEIGHT - _TOP - _BOTTOM)


def _round_step(rough: float) -> float:
    decade = 10.0 ** math.floor(math.log10(rough))
    return float(next(step * decade for step in (1, 2, 2.5, 5, 10) if step * decade >= rough * (1 - 1e-9)))
