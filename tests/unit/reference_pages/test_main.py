"""The pages on disk are what the code says now, and what is stale is named with what mends it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reference_pages import __main__ as writer


def test_the_pages_on_disk_are_fresh() -> None:
    assert writer.stale(writer.pages()) == [], "make docs-reference"


def test_every_page_of_the_reference_is_made() -> None:
    assert set((writer.ROOT / "docs/reference").glob("*.md")) <= set(writer.pages())


def test_stale_and_missing_pages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {tmp_path / name / "page.md": f"{name}\n" for name in ("fresh", "stale", "missing")}
    monkeypatch.setattr(writer, "ROOT", tmp_path)
    monkeypatch.setattr(writer, "pages", lambda: made)
    monkeypatch.setattr(sys, "argv", ["reference_pages"])
    assert writer.main() == 0
    (tmp_path / "stale" / "page.md").write_text("old\n")
    (tmp_path / "missing" / "page.md").unlink()
    monkeypatch.setattr(sys, "argv", ["reference_pages", "--check"])
    assert writer.main() == 1
    assert capsys.readouterr().err == "stale: stale/page.md, missing/page.md; mend with: make docs-reference\n"
    assert (tmp_path / "stale" / "page.md").read_text() == "old\n"
