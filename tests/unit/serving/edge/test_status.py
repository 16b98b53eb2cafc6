"""No message is too long, or too odd, to travel."""

from __future__ import annotations

import pytest

from serving.edge.status import MAX_DETAILS_BYTES, details


@pytest.mark.parametrize(
    ("message", "travels"),
    [
        ("", ""),
        ("short", "short"),
        ("a" * MAX_DETAILS_BYTES, "a" * MAX_DETAILS_BYTES),
        ("a" * (MAX_DETAILS_BYTES + 1), "a" * MAX_DETAILS_BYTES + "..."),
        ("é" * (MAX_DETAILS_BYTES // 2), "é" * (MAX_DETAILS_BYTES // 2)),
        ("é" * MAX_DETAILS_BYTES, "é" * (MAX_DETAILS_BYTES // 2) + "..."),
        ("a" + "é" * MAX_DETAILS_BYTES, "a" + "é" * (MAX_DETAILS_BYTES // 2 - 1) + "..."),
        ("€" * MAX_DETAILS_BYTES, "€" * (MAX_DETAILS_BYTES // 3) + "..."),
        ("a name on disk that is no text: \udcff", "a name on disk that is no text: ?"),
    ],
    ids=["empty", "short", "just fits", "a byte too long", "fits in two bytes each", "cut between characters",
         "cut before a character", "three bytes each", "half a character"],
)  # fmt: skip
def test_what_travels_of_a_message(message: str, travels: str) -> None:
    assert details(message) == travels
    assert len(details(message).encode()) <= MAX_DETAILS_BYTES + len("...")
