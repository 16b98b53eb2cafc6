"""What outlives the server: rows of bytes by model and key, in whatever keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Row(NamedTuple):
    """What is written of one sequence; a `record` that is None deletes what is there, if anything is."""

    model: str
    key: int  # 0 to 2**63 - 1
    record: bytes | bytearray | None


class Disk(Protocol):
    """Keeps rows and notes. Used by one thread at a time, the store's; whoever opened it closes it.

    `lost` says why what was written last may be missing, None where nothing is known to be.

    Every method but `close` raises `StoreFailed`; after that all is as it was before the call, and the next call may succeed.
    """

    lost: str | None

    def write(self, rows: Sequence[Row]) -> None:
        """Writes all rows or none; of those with the same model and key the last counts.

        Once it has returned they outlive what the operator chose: the end of the process, or that of the machine's power.
        """
        ...

    def read(self, model: str, key: int) -> bytes | None:
        """The record of a key; None if there is none."""
        ...

    def scan(self, model: str, after: int, most: int) -> list[tuple[int, bytes]]:
        """The first `most` keys above `after` with their records, in the order of the keys; -1 begins at the first."""
        ...

    def count(self, model: str) -> int:
        """How many records a model has. It looks at all of them, which takes a while where there are many."""
        ...

    def models(self) -> list[str]:
        """The models that have records, in the order of their names."""
        ...

    def note(self, name: str, value: str) -> None:
        """Keeps a small fact beside the rows, in place of what was noted by that name before."""
        ...

    def noted(self, name: str) -> str | None:
        """What was noted by that name; None if nothing was."""
        ...

    def close(self) -> None:
        """Nothing may be called after it; a second `close` does nothing."""
        ...
