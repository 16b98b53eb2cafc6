"""BYTES on the wire: lengths and bytes, and the sentence for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.signature import byte_strings


@given(st.lists(st.binary(max_size=20)))
def test_what_is_packed_is_unpacked(elements: list[bytes]) -> None:
    assert byte_strings.unpack(byte_strings.pack(elements), len(elements)) == elements


def test_the_form_is_the_protocols() -> None:
    assert byte_strings.pack([b"ab", b""]) == b"\2\0\0\0ab\0\0\0\0"


@pytest.mark.parametrize(
    ("raw", "count", "message"),
    [
        (b"", 1, "expected 1 string elements, got 0"),
        (b"\0\0\0\0", 2, "expected 2 string elements, got 1"),
        (b"\0\0\0\0", 0, "more than the 0 of its shape"),
        (b"\0\0\0\0\1", 2, "incomplete string length indicator: 1 bytes are left"),
        (b"\3\0\0\0ab", 1, "incomplete string data: element 0 says 3 bytes, 2 are left"),
        (b"\xff\xff\xff\xff", 1, "says 4294967295 bytes, 0 are left"),
    ],
)
def test_what_does_not_fit(raw: bytes, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        byte_strings.unpack(raw, count)
