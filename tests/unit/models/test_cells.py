"""What is a number in a cell, and what only looks like one."""

from __future__ import annotations

import pytest

from models.cells import number


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), (" -2.5 ", -2.5), ("1e3", 1000.0), ("+.5", 0.5), ("3.4e38", 3.4e38), ("1e-50", 1e-50)],
)
def test_numbers(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is '', which is no number"),
        ("ten", "is 'ten', which is no number"),
        ("1_000", "is '1_000', which is no number"),
        ("1,5", "is '1,5', which is no number"),
        ("inf", "is inf, which float32 cannot hold"),
        ("nan", "is nan, which float32 cannot hold"),
        ("-3.5e38", "is -3.5e38, which float32 cannot hold"),
        ("x" * 31, f"is '{'x' * 30}', which is no number"),
    ],
)
def test_what_is_none(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="which") as refused:
        number(text)
    assert str(refused.value) == sentence
