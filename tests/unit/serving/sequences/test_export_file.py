"""A file holds what was put into it, and one that was changed anywhere is refused by name."""

from __future__ import annotations

import hashlib

import pytest

from serving.sequences import export_file
from serving.sequences.export_file import MAGIC, Taken
from serving.sequences.records import Torn

TAKEN = Taken("m", "3", "onnxruntime", "2026-01-02T03:04:05+00:00", "0.1.0", b"a record\nof bytes \0\xff")


def sealed(head: bytes, record: bytes = b"") -> bytes:
    """A file whose digest is right, whatever its head says."""
    return MAGIC + head + hashlib.sha256(MAGIC + head + record).hexdigest().encode() + b"\n" + record


def test_what_is_packed_comes_back_and_is_told_in_two_lines() -> None:
    content = export_file.pack(TAKEN)
    assert export_file.unpack(content) == TAKEN
    magic, head, *_ = content.split(b"\n")
    assert magic == b"lstm-serving sequence"
    assert b'"model": "m"' in head
    assert b'"backend": "onnxruntime"' in head


def test_every_byte_matters() -> None:
    content = export_file.pack(TAKEN)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        with pytest.raises(Torn):
            export_file.unpack(bytes(changed))
        with pytest.raises(Torn):
            export_file.unpack(content[:place])
    with pytest.raises(Torn, match="its digest is wrong"):
        export_file.unpack(content + b"more")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no exported sequence"),
        (b"\x89PNG", "no exported sequence"),
        (MAGIC + b"{" * 100_000, "within its head"),
        (sealed(b'{"format": 2}\n'), "its format is 2, and 1 is read here"),
        (sealed(b'{"format": 1, "model": "m"}\n'), "its head says nothing: KeyError"),
        (sealed(b"[1]\n"), "its head says nothing"),
        (sealed(b"?\n"), "its head says nothing"),
    ],
)
def test_what_is_no_file_of_ours_is_refused_by_name(content: bytes, message: str) -> None:
    with pytest.raises(Torn, match=message):
        export_file.unpack(content)
