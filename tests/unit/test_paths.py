"""Every path that the README and the pages of docs/ name is there: a page that sends its reader nowhere is worse than none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = (
    "admin",
    "benchmarks",
    "commands",
    "deploy",
    "docs",
    "examples",
    "export",
    "loadtest",
    "lstm_serving",
    "models",
    "protos",
    "serving",
    "tests",
)
PATH = re.compile(rf"`((?:{'|'.join(PACKAGES)})/[\w./<>*{{}},-]*)`")
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)[^)]*\)")


def named(text: str) -> Iterator[str]:
    """Paths in backticks, `a/{b,c}.py` as two of them and `<name>` as anything."""
    for found in PATH.findall(text):
        inside = re.search(r"\{([^}]*)\}", found)
        for choice in inside[1].split(",") if inside else [""]:
            yield re.sub(r"<\w+>", "*", re.sub(r"\{[^}]*\}", choice, found))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [path for path in named(text) if not any(ROOT.glob(path.rstrip("/")))]
    missing += [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("see `serving/edge/tls.py`.", ["serving/edge/tls.py"]),
        ("`models/{torch,keras}_lstm.py`", ["models/torch_lstm.py", "models/keras_lstm.py"]),
        ("`serving/backends/<name>.py`", ["serving/backends/*.py"]),
        ("`speakers/config.pbtxt` is the user's", []),
    ],
)
def test_what_counts_as_a_path(text: str, paths: list[str]) -> None:
    assert list(named(text)) == paths
