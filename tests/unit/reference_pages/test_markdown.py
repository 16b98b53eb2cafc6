"""What the pages are put together from."""

from __future__ import annotations

from reference_pages import markdown


def test_a_table_keeps_its_bars_within_the_cells() -> None:
    assert markdown.table(("a", "b"), [("1|2", "")]) == "| a | b |\n| --- | --- |\n| 1\\|2 |  |"


def test_empty_parts_of_a_page_leave_no_gap() -> None:
    assert markdown.page("T", "", "text") == f"{markdown.MADE}\n\n# T\n\ntext\n"


def test_nothing_is_no_code() -> None:
    assert (markdown.code("x"), markdown.code("")) == ("`x`", "")
