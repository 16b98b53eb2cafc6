"""The chart of the README: how long requests take while a backend is swapped, out of the figures of `make bench-swaps`.

It stands on a ground of its own, so that it can be read whatever lies around it, and follows the reader's light or dark.
"""

from __future__ import annotations

import dataclasses
import re
from html import escape

WIDTH, LEFT, TOP, LINE, BAR, GAP = 830, 300, 92, 52, 17, 2
SCALE_WIDTH = WIDTH - LEFT - 80
STYLE = """\
  text { font: 14px system-ui, "Segoe UI", "Liberation Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .small { font-size: 13px; fill: #59636e }
  .ground { fill: #ffffff; stroke: #d1d9e0 }
  .steady { fill: #9aa7b4 }
  .swap { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9ea7b1 }
    .ground { fill: #0d1117; stroke: #3d444d }
    .steady { fill: #656c76 }
    .swap { fill: #4493f8 }
  }"""


@dataclasses.dataclass(frozen=True)
class Swap:
    """A line of the table: from what to what, how often, the seconds of a swap, and p99 in milliseconds."""

    what: str
    times: int
    seconds: float
    meanwhile_ms: float
    steady_ms: float


def swaps(report: str) -> list[Swap]:
    """The table of swaps in docs/swaps.md. Raises `ValueError` where it is not there."""
    head = "| swap | times | takes, s | requests | p99 meanwhile, ms | p99 of the slower one, ms |"
    _, found, rest = report.partition(head)
    if not found:
        raise ValueError(f"docs/swaps.md has no table that begins with {head!r}; write it with: make bench-swaps")
    made = []
    for line in rest.split("\n\n")[0].splitlines()[2:]:
        what, times, seconds, _, meanwhile, steady, *_ = (cell.strip() for cell in line.strip("| ").split("|"))
        made.append(Swap(what, int(times), float(seconds), float(meanwhile), float(steady)))
    return made


def failed(report: str) -> str:
    """How many requests failed, of how many: `0 of 562,027`. Raises `ValueError` where the report does not say."""
    found = re.search(r"^\| no request fails \| ([\d,]+ of [\d,]+) \|", report, re.MULTILINE)
    if not found:
        raise ValueError("docs/swaps.md does not say how many requests failed; write it with: make bench-swaps")
    return found[1]


def drawn(report: str) -> str:
    """The chart as SVG: for each kind of swap p99 while it lasts, and below it that of the slower of its two backends."""
    lines = swaps(report)
    most = max(max(each.meanwhile_ms, each.steady_ms) for each in lines)
    height = TOP + LINE * len(lines) + 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        "<title>p99 of requests while a backend is swapped, and while it serves steadily</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        '<text class="title" x="20" y="32">p99 of requests while a backend is swapped, ms</text>',
        '<rect class="swap" x="20" y="50" width="14" height="14"/><text x="42" y="62">while the swap lasts</text>',
        '<rect class="steady" x="200" y="50" width="14" height="14"/>',
        '<text x="222" y="62">the slower of the two backends, serving steadily</text>',
    ]
    for number, each in enumerate(lines):
        y = TOP + LINE * number
        times = "once" if each.times == 1 else f"{each.times} times"
        parts += [
            f'<text x="20" y="{y + 14}">{escape(each.what)}</text>',
            f'<text class="small" x="20" y="{y + 32}">{each.seconds:g} s, {times}</text>',
            *_bar("swap", y, each.meanwhile_ms, most),
            *_bar("steady", y + BAR + GAP, each.steady_ms, most),
        ]
    told = f"16 clients in a closed loop, two cores shared by all; {failed(report)} requests failed"
    return "\n".join([*parts, f'<text class="small" x="20" y="{height - 18}">{told}</text>', "</svg>", ""])


def _bar(kind: str, y: int, value: float, most: float) -> list[str]:
    width = round(SCALE_WIDTH * value / most, 1)
    return [
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width}" height="{BAR}" rx="2"/>',
        f'<text x="{LEFT + width + 8}" y="{y + 13}">{value:g}</text>',
    ]
