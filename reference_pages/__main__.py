"""Writes the pages of the reference, and the chart of the README; with --check says which of them are stale.

    python -m reference_pages [--check]

They are made from the code, so that they cannot say anything else than it does. This folder is a tool of the checkout like
`benchmarks/`, and no package of the product: nothing imports it but its tests.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reference_pages import chart, codes, command_lines, config_fields, decisions, metrics

ROOT = Path(__file__).parents[1]
MENDED_BY = "make docs-reference"


def pages() -> dict[Path, str]:
    """The text of every page that is made, by its path."""
    folder = ROOT / "docs/reference"
    return {
        **{folder / f"{name}.md": text for name, text in command_lines.pages().items()},
        folder / "config.md": config_fields.page_text(),
        folder / "codes.md": codes.page_text(),
        folder / "metrics.md": metrics.page_text(),
        ROOT / "docs/adr/index.md": decisions.page_text((ROOT / "docs/adr").glob("0*.md")),
        ROOT / "docs/pictures/swaps.svg": chart.drawn((ROOT / "docs/swaps.md").read_text(encoding="utf-8")),
    }


def stale(made: dict[Path, str]) -> list[str]:
    """The pages on disk that say something else, or are not there, relative to the root."""
    return [
        str(path.relative_to(ROOT))
        for path, text in made.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Entry point. Exit codes: 0 done or fresh, 1 a page is stale."""
    parser = argparse.ArgumentParser(description="Write the pages that are made from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page is stale")
    asked = parser.parse_args()
    made = pages()
    if asked.check:
        if found := stale(made):
            print(f"stale: {', '.join(found)}; mend with: {MENDED_BY}", file=sys.stderr)
        return int(bool(found))
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
