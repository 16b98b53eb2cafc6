"""A chart of pairs of bars, as SVG.

It stands on a ground of its own, so that it can be read whatever lies around it, and follows the reader's light or dark.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape

WIDTH, TOP, LINE, BAR, GAP = 830, 92, 52, 17, 2
STYLE = """\
  text { font: 14px system-ui, "Segoe UI", "Liberation Sans", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .small { font-size: 13px; fill: #59636e }
  .ground { fill: #ffffff; stroke: #d1d9e0 }
  .second { fill: #9aa7b4 }
  .first { fill: #0969da }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .small { fill: #9ea7b1 }
    .ground { fill: #0d1117; stroke: #3d444d }
    .second { fill: #656c76 }
    .first { fill: #4493f8 }
  }"""


@dataclasses.dataclass(frozen=True)
class Pair:
    """What is compared, a remark on it, and its two values; None for what was not measured."""

    name: str
    remark: str
    first: float | None
    second: float | None


@dataclasses.dataclass(frozen=True)
class Chart:
    """`description` is for those who cannot see it, `first` and `second` say what the bars of a pair are, `told` stands below.

    `left` is where the bars begin.
    """

    title: str
    description: str
    first: str
    second: str
    told: str
    left: int

    @property
    def scale_width(self) -> int:
        """Of the longest bar."""
        return WIDTH - self.left - 80

    def drawn(self, pairs: Sequence[Pair]) -> str:
        """The SVG; values are written with three significant digits."""
        most = max((value for pair in pairs for value in (pair.first, pair.second) if value), default=1.0)
        height = TOP + LINE * len(pairs) + 36
        beside = 60 + 8 * len(self.first)  # an estimate of how wide the first one's text is
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img">',
            f"<title>{escape(self.description)}</title>",
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
            f'<text class="title" x="20" y="32">{escape(self.title)}</text>',
            *_legend("first", 20, self.first),
            *_legend("second", beside, self.second),
        ]
        for number, pair in enumerate(pairs):
            y = TOP + LINE * number
            parts += [f'<text x="20" y="{y + 14}">{escape(pair.name)}</text>']
            parts += [f'<text class="small" x="20" y="{y + 32}">{escape(pair.remark)}</text>'] if pair.remark else []
            parts += self._bar("first", y, pair.first, most)
            parts += self._bar("second", y + BAR + GAP, pair.second, most)
        parts += [f'<text class="small" x="20" y="{height - 18}">{escape(self.told)}</text>', "</svg>", ""]
        return "\n".join(parts)

    def _bar(self, kind: str, y: int, value: float | None, most: float) -> list[str]:
        if value is None:
            return [f'<text class="small" x="{self.left}" y="{y + 13}">not measured</text>']
        width = round(self.scale_width * value / most, 1)
        return [
            f'<rect class="{kind}" x="{self.left}" y="{y}" width="{width}" height="{BAR}" rx="2"/>',
            f'<text x="{self.left + width + 8}" y="{y + 13}">{float(f"{value:.3g}"):g}</text>',
        ]


def _legend(kind: str, x: int, text: str) -> list[str]:
    return [
        f'<rect class="{kind}" x="{x}" y="50" width="14" height="14"/>',
        f'<text x="{x + 22}" y="62">{escape(text)}</text>',
    ]
