"""BYTES tensors on the wire: every element is its length (4 bytes, little-endian) and then that many bytes.

In memory such a tensor is an object array of `bytes`. An element may hold anything, NUL and bytes that are no text
included, and it comes back as it went in.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

_LENGTH = struct.Struct("<I")


def unpack(raw: bytes, count: int) -> list[bytes]:
    """The `count` elements that `raw` holds. Raises `ValueError`, saying what is wrong, when it holds anything else."""
    elements: list[bytes] = []
    place = 0
    while place < len(raw):
        if len(elements) == count:
            raise ValueError(f"unexpected number of string elements: more than the {count} of its shape")
        begin = place + _LENGTH.size
        if begin > len(raw):
            raise ValueError(f"incomplete string length indicator: {len(raw) - place} bytes are left, it takes 4")
        (length,) = _LENGTH.unpack_from(raw, place)
        place = begin + length
        if place > len(raw):
            raise ValueError(
                f"incomplete string data: element {len(elements)} says {length} bytes, {len(raw) - begin} are left"
            )
        elements.append(raw[begin:place])
    if len(elements) != count:
        raise ValueError(f"expected {count} string elements, got {len(elements)}")
    return elements


def pack(elements: Iterable[bytes]) -> bytes:
    """The elements as they travel."""
    return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))
