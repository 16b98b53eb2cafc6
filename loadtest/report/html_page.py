"""The report as one page that needs nothing else: plots, table, and what has to be said about the figures.

It holds no script and fetches nothing, so it can be mailed and kept. The colours of the runs go from blue to red with
the load, not through a palette, because the runs are an ordered scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from loadtest.report import plots, table
from loadtest.report.plots import Axis, Series
from loadtest.result import Result

_SHOWN_PERCENTILES = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9"))

_WARNINGS = ("saturated", "unsteady", "held back", "given up after", "continuations: ")
_REASSURING = "continuations: none"

_STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1d2126; --soft: #5c6570; --line: #e4e6e9;
  --warn: #8a4b00; --warn-page: #fff4e0; --light: 44%; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1c2026; --ink: #e8eaed; --soft: #a0a8b3;
  --line: #31373f; --warn: #ffc069; --warn-page: #3a2a10; --light: 66%; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem 3rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1340px; margin: 0 auto; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
p.about { color: var(--soft); margin: 0 0 1.25rem; }
p.found { white-space: pre-line; font-weight: 600; margin: 0 0 1.25rem; }
p.found:empty { display: none; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 1rem; }
figure, .card { margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
figcaption { font-weight: 600; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .25rem 0 0; padding: 0;
  color: var(--soft); font-size: .85rem; }
.legend span { display: inline-block; width: .9rem; height: .25rem; border-radius: 2px; margin: 0 .35rem .2rem 0; }
svg { display: block; width: 100%; height: auto; margin-top: .25rem; }
svg line { stroke: var(--line); }
svg path { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg text { fill: var(--soft); font-size: 12px; }
svg .axis { text-anchor: middle; }
.card { margin-top: 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
.notes { list-style: none; margin: 0 0 1rem; padding: 0; display: grid; gap: .5rem; }
.notes li { padding: .5rem .8rem; border-left: 3px solid var(--line); background: var(--card); border-radius: 4px;
  color: var(--soft); overflow-wrap: anywhere; }
.notes li.warn { border-color: var(--warn); background: var(--warn-page); color: var(--warn); }
"""


def render(results: Sequence[Result], conclusion: str = "") -> str:
    """The whole page, also for no run at all; `conclusion` is what a search has found."""
    title = table.headline(results[0]) if results else "nothing was measured"
    answered = [result for result in results if result.curve]
    answered.sort(key=lambda result: result.setting.level)
    drawn = [*_against_load(answered), *_distribution(answered), *_over_time(answered)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main><h1>Load test</h1>"
        f'<p class="about">{escape(title)}</p>\n<p class="found">{escape(conclusion)}</p>{_notes(results)}'
        '<div class="plots">\n' + "\n".join(drawn) + f"\n</div>\n{_table(results)}</main></body></html>\n"
    )


def _colour(index: int, count: int) -> str:
    hue = 212 + (148 * index / (count - 1) if count > 1 else 0)
    return f"hsl({hue:.0f} 72% var(--light))"


def _against_load(results: Sequence[Result]) -> list[str]:
    """Latency and throughput against the level, where there is more than one."""
    levels = [result.setting.level for result in results]
    if len(set(levels)) < 2:
        return []
    unit = {"closed": "requests in flight", "sequences": "sequences at once"}.get(
        results[0].setting.mode, "requests/s offered"
    )
    wide = max(levels) / min(levels) >= 16
    x = plots.log_axis(unit, levels) if wide else plots.linear_axis(unit, levels)
    lines = [
        Series(
            shown,
            _colour(index, len(_SHOWN_PERCENTILES)),
            [(result.setting.level, (result.latency_seconds[name] or 0) * 1e3) for result in results],
            marks=True,
        )
        for index, (name, shown) in enumerate(_SHOWN_PERCENTILES)
    ]
    throughput = [(result.setting.level, result.throughput_per_second) for result in results]
    made = [plots.plot("Latency against load", x, _latency_axis(lines), lines)]
    y = plots.linear_axis("requests/s answered", [value for _, value in throughput])
    made.append(
        plots.plot("Throughput against load", x, y, [Series("answered", _colour(0, 1), throughput, marks=True)])
    )
    return made


def _distribution(results: Sequence[Result]) -> list[str]:
    if not results:
        return []
    lines = [
        Series(
            result.setting.title,
            _colour(index, len(results)),
            [
                (plots.nines(percentile), seconds * 1e3)
                for percentile, seconds in result.curve
                if percentile <= 100 * (1 - 1 / (result.succeeded + 1))
            ],
        )
        for index, result in enumerate(results)
    ]
    x = plots.nines_axis("percentile", max(result.succeeded for result in results))
    return [plots.plot("Distribution of latency", x, _latency_axis(lines), lines)]


def _over_time(results: Sequence[Result]) -> list[str]:
    lines = [
        Series(
            result.setting.title,
            _colour(index, len(results)),
            [
                (window["second"] or 0.0, window["p99"] * 1e3)
                for window in result.over_time
                if window["p99"] is not None
            ],
        )
        for index, result in enumerate(results)
    ]
    if not lines:
        return []
    x = plots.linear_axis("seconds since the start of the measurement", [result.measured_seconds for result in results])
    about = "p99 over time, by when the request " + (
        "began" if results[0].setting.offered_per_second is None else "was meant to leave"
    )
    return [plots.plot(about, x, _latency_axis(lines), lines)]


def _latency_axis(lines: Sequence[Series]) -> Axis:
    return plots.log_axis("latency, ms", [max(value, 1e-3) for line in lines for _, value in line.points] or [1.0])


def _notes(results: Sequence[Result]) -> str:
    items = "".join(f"<li{' class=warn' if _warns(note) else ''}>{escape(note)}</li>" for note in table.notes(results))
    return f'<ul class="notes">{items}</ul>\n' if items else ""


def _warns(note: str) -> bool:
    return any(word in note for word in _WARNINGS) and _REASSURING not in note


def _table(results: Sequence[Result]) -> str:
    server = table.has_server_times(results)
    head = "".join(f"<th>{escape(text)}</th>" for text in table.headings(server))
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in table.cells(result, server)) + "</tr>"
        for result in results
    )
    about = "<br>".join(map(escape, table.legend(results)))
    return f'<div class="card"><table><tr>{head}</tr>\n{rows}</table><p class="about">{about}</p></div>\n'
