"""A disk in memory, which outlives whoever has opened it, and does what it is told to do wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serving.errors import StoreFailed
from serving.sequences.disk import Row


class FakeDisk:
    """A `sequences.disk.Disk`. While it is `full` nothing can be written. Functions are called around writes and before reads."""

    def __init__(self, rows: dict[tuple[str, int], bytes] | None = None, notes: dict[str, str] | None = None) -> None:
        self.rows = {} if rows is None else rows
        self.notes = {} if notes is None else notes
        self.lost: str | None = None
        self.full = False
        self.unreadable = False
        self.writes = 0
        self.before_write: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None
        self.before_read: Callable[[], None] = lambda: None
        self.closed = False

    def write(self, rows: Sequence[Row]) -> None:
        self.before_write()
        if self.full:
            raise StoreFailed("the disk is full")
        self.writes += 1
        for row in rows:
            if row.record is None:
                self.rows.pop((row.model, row.key), None)
            else:
                self.rows[row.model, row.key] = bytes(row.record)
        self.after_write()

    def read(self, model: str, key: int) -> bytes | None:
        self.before_read()
        if self.unreadable:
            raise StoreFailed("the disk cannot be read")
        return self.rows.get((model, key))

    def scan(self, model: str, after: int, most: int) -> list[tuple[int, bytes]]:
        if self.unreadable:
            raise StoreFailed("the disk cannot be read")
        found = sorted((key, record) for (of, key), record in self.rows.items() if of == model and key > after)
        return found[:most]

    def count(self, model: str) -> int:
        return len(self.scan(model, -1, len(self.rows)))

    def models(self) -> list[str]:
        return sorted({model for model, _ in self.rows})

    def note(self, name: str, value: str) -> None:
        if self.full:
            raise StoreFailed("the disk is full")
        self.notes[name] = value

    def noted(self, name: str) -> str | None:
        return self.notes.get(name)

    def close(self) -> None:
        self.closed = True

    def copy(self) -> FakeDisk:
        """As it is now, for whoever opens it next."""
        return FakeDisk(dict(self.rows), dict(self.notes))
