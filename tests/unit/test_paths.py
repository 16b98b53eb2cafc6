"""Every path that the README and the pages of docs/ name is there: a page that sends its reader nowhere is worse than none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.commands import ROOT
from tests.support.pages import PAGES, name_of

DOCS = ROOT / "docs"
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
    "reference_pages",
    "serving",
    "tests",
)
PATH = re.compile(rf"`((?:{'|'.join(PACKAGES)})/[\w./<>*{{}},-]*)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")


def named(text: str) -> Iterator[str]:
    """Paths in backticks, `a/{b,c}.py` as two of them and `<name>` as anything."""
    for found in PATH.findall(text):
        inside = re.search(r"\{([^}]*)\}", found)
        for choice in inside[1].split(",") if inside else [""]:
            yield re.sub(r"<\w+>", "*", re.sub(r"\{[^}]*\}", choice, found))


def anchors(page: Path) -> set[str]:
    """What a link may name behind #, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [path for path in named(text) if not any(ROOT.glob(path.rstrip("/")))]
    for link, anchor in LINK.findall(text):
        target = page.parent / link if link else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(f"{link}#{anchor}")
    assert missing == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(DOCS)], ids=name_of)
def test_a_page_of_the_site_links_to_the_site_alone(page: Path) -> None:
    links = [link for link, _ in LINK.findall(page.read_text(encoding="utf-8")) if link]
    assert [link for link in links if not (page.parent / link).resolve().is_relative_to(DOCS)] == []


def test_the_site_leads_to_every_page() -> None:
    """Records of decisions are led to by their list."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    led_to = set(pages_of(nav))
    pages = {str(page.relative_to(DOCS)) for page in PAGES if page.is_relative_to(DOCS)}
    assert {page for page in pages if not page.startswith("adr/0")} == led_to


def pages_of(nav: object) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict | list):
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_of(part)


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
