"""A sequence in a file, for an operator to take along: a line that says what it is, a line about it, a digest, and its record.

The digest is over everything else, so a file that was cut off or changed anywhere is known as that.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from serving.sequences.records import Torn

FORMAT = 1
MAGIC = b"lstm-serving sequence\n"
MOST_HEAD_BYTES = 65_536
FIELDS = ("model", "version", "backend", "written_at", "written_by")


class Taken(NamedTuple):
    """What a file holds: the model and its version, the backend that computed the state, when and by what it was written.

    `record` is as `serving.sequences.records` makes them.
    """

    model: str
    version: str
    backend: str
    written_at: str  # ISO 8601, UTC
    written_by: str  # the release of lstm-serving
    record: bytes


def pack(taken: Taken) -> bytes:
    """The file."""
    said = {"format": FORMAT} | {name: getattr(taken, name) for name in FIELDS}
    head = json.dumps(said).encode() + b"\n"
    return MAGIC + head + _digest(head, taken.record) + b"\n" + taken.record


def unpack(content: bytes) -> Taken:
    """What `pack` was given. Raises `Torn`, saying what is wrong."""
    if not content.startswith(MAGIC):
        raise Torn(f"it does not begin with {MAGIC.decode().strip()!r}: it is no exported sequence")
    end = content.find(b"\n", len(MAGIC), len(MAGIC) + MOST_HEAD_BYTES) + 1
    head, digest, rest = content[len(MAGIC) : end], content[end : end + 64], content[end + 64 :]
    if not end or rest[:1] != b"\n":
        raise Torn("it was cut off or changed within its head")
    if digest != _digest(head, rest[1:]):
        raise Torn("its digest is wrong: it was cut off or changed after it was written")
    try:
        said = dict(json.loads(head))
        if said["format"] != FORMAT:
            raise Torn(
                f"its format is {said['format']!r}, and {FORMAT} is read here: another release of lstm-serving wrote it"
            )
        model, version, backend, written_at, written_by = (str(said[name]) for name in FIELDS)
    except (ValueError, TypeError, KeyError) as error:
        raise error if isinstance(error, Torn) else Torn(f"its head says nothing: {error!r}") from error
    return Taken(model, version, backend, written_at, written_by, rest[1:])


def _digest(head: bytes, record: bytes) -> bytes:
    return hashlib.sha256(b"".join([MAGIC, head, record])).hexdigest().encode()
