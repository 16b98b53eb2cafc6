"""Columns as wide as their widest cell, on the side that is asked for, and nothing behind the last cell."""

from __future__ import annotations

from commands.table import aligned


def test_words_to_the_left_and_numbers_to_the_right() -> None:
    assert aligned([["model", "rows/s", "state"], ["vowels", "12", "READY"], ["m", "1234567", "-"]], right={1}) == [
        "model    rows/s  state",
        "vowels       12  READY",
        "m       1234567  -",
    ]


def test_a_line_may_end_early() -> None:
    assert aligned([["", "device", "us"], ["*", "cpu", "45.6"], ["", "cuda:0"]], right=[2]) == [
        "   device    us",
        "*  cpu     45.6",
        "   cuda:0",
    ]


def test_a_table_of_nothing() -> None:
    assert aligned([]) == []
    assert aligned([[], ["a"]]) == ["", "a"]
