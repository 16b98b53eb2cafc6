"""Markdown that the pages share: where a page comes from, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MADE = "<!-- made by: make docs-reference -->"


def page(title: str, *parts: str) -> str:
    """A whole page; empty parts are left out."""
    return "\n\n".join([f"{MADE}\n\n# {title}", *filter(None, parts)]) + "\n"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, whose cells may hold anything but line breaks."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def code(text: str) -> str:
    """The text as code; empty for an empty one."""
    return f"`{text}`" if text else ""
