"""The list of decisions has each record once, in their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from reference_pages import decisions


def record(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_records_stand_in_their_order(tmp_path: Path) -> None:
    records = [
        record(tmp_path, "0002-b.md", "# 2. B\n"),
        record(tmp_path, "0001-a.md", "# 1. A, with reasons\n\ntext\n"),
    ]
    assert decisions.page_text(records).endswith("\n- [1. A, with reasons](0001-a.md)\n- [2. B](0002-b.md)\n")


def test_a_record_without_a_title_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must begin with"):
        decisions.title(record(tmp_path, "0001-a.md", "text\n"))
