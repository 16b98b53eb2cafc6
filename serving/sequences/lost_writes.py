"""Whether the end of a log of writes (SQLite's write-ahead log) has been lost.

SQLite takes a log whose end is missing, or does not agree with its sums, for one that ends there. After a loss of power that is
right; after a kill it is not, since all that had been written is still there. So a log is made as long as it gets before anything
is written to it, and is as long after a kill; and it is looked at what stands behind the first frame that does not agree.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

HEAD, FRAME_HEAD = 32, 24  # bytes, of the log and of each page in it


def make_long(log: Path, pages: int, page_bytes: int) -> None:
    """Makes the log, which is there, long enough for so many pages; what it holds stays. Raises `OSError`."""
    if log.stat().st_size < _length(pages, page_bytes):
        os.truncate(log, _length(pages, page_bytes))


def missing(log: Path, pages: int, page_bytes: int) -> str | None:
    """Why writes are missing, if the log is shorter than it was made. Raises `OSError`."""
    size = log.stat().st_size if log.exists() else 0
    if size < _length(pages, page_bytes):
        return f"{log.name} has been cut off: it has {size} bytes and had {_length(pages, page_bytes)}"
    return None


class Heads(NamedTuple):
    """The head of a log, and those of the frames in it, as they stand there."""

    log: bytes
    frames: Sequence[bytes]

    def commits(self) -> list[int]:
        """After how many frames a write ends, whether the frames agree with their sums or not."""
        first = self.frames[0][8:16] if self.frames else b""
        salt = self.log[16:24] if _agrees(self.log) else first  # what is older has another
        return [n for n, one in enumerate(self.frames, 1) if any(salt) and one[8:16] == salt and any(one[4:8])]


def heads(log: Path, page_bytes: int) -> Heads:
    """What stands in a log; nothing where there is none. Raises `OSError`."""
    if not log.exists():
        return Heads(b"", [])
    with log.open("rb", buffering=0) as file:
        frames = (os.fstat(file.fileno()).st_size - HEAD) // (FRAME_HEAD + page_bytes)
        places = (HEAD + number * (FRAME_HEAD + page_bytes) for number in range(frames))
        return Heads(file.read(HEAD), [os.pread(file.fileno(), FRAME_HEAD, place) for place in places])


def unread(before: Heads, after: Heads) -> str | None:
    """Why writes are missing, if SQLite has made another of these heads in its first write: it goes on behind what it could read.

    One more write may be the one that the process was killed in, which nobody was told of.
    """
    pairs = enumerate(zip(before.frames, after.frames, strict=False))
    read = next((at for at, (one, other) in pairs if one != other), len(before.frames))
    behind = [one for one in before.commits() if one > read]
    return f"{len(behind)} writes in its log cannot be read any more" if len(behind) > 1 else None


def boot() -> str:
    """What the machine's last start is called; empty where nobody says."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _length(pages: int, page_bytes: int) -> int:
    return HEAD + pages * (FRAME_HEAD + page_bytes)


def _agrees(head: bytes) -> bool:
    """Whether the log's head agrees with its sums; their order of bytes is the last bit of its first word."""
    if len(head) < HEAD:
        return False
    words = struct.unpack((">" if head[3] & 1 else "<") + "6I", head[:24])
    first = second = 0
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return struct.pack(">2I", first, second) == head[24:32]
