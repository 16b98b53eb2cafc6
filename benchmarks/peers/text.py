"""How figures stand in a page of Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence


def short(value: float | None) -> str:
    """Three significant digits; a dash for what was not measured."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def ratio(value: float | None) -> str:
    """Two decimals, in bold."""
    return "-" if value is None else f"**{value:.2f}**"


def paragraph(text: str) -> list[str]:
    """Lines of at most 119 characters, and an empty one."""
    return [*textwrap.wrap(text, 119, break_long_words=False, break_on_hyphens=False), ""]


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"
