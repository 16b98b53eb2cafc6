"""The pages that people read, and the code and commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.commands import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """A page's path from the root."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[str]:
    """Every line of the shell's blocks that is a command, without a comment behind it or & for the background."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if command and not command.startswith("#"):
                yield command.removesuffix("&").strip()
