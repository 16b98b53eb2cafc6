"""The list of decisions: every record in docs/adr by its own title."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reference_pages.markdown import page


def page_text(records: Iterable[Path]) -> str:
    """The whole page; the first line of a record is `# NUMBER. TITLE`."""
    return page(
        "Decisions",
        "Each record says what was decided, why, and what follows. A record is kept when a later one changes it.",
        "\n".join(f"- [{title(record)}]({record.name})" for record in sorted(records)),
    )


def title(record: Path) -> str:
    """The title with its number. Raises `ValueError` where the first line is no title."""
    first = record.read_text(encoding="utf-8").partition("\n")[0]
    if not first.startswith("# "):
        raise ValueError(f"{record} begins with {first!r}; it must begin with '# NUMBER. TITLE'")
    return first.removeprefix("# ")
