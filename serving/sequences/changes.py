"""What a store is to hold of sequences from now on, until it has been written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from serving.sequences import records
from serving.sequences.records import Kept
from serving.sequences.step import Key


class Rows(NamedTuple):
    """The new states of a batch, each tensor's as one text of bytes, in the order in which a record holds them; and a row."""

    states: Sequence[tuple[bytes, int]]  # and how many of the bytes are one row
    row: int


class Change(NamedTuple):
    """A sequence as its last step has left it, or its end; it is packed by whoever writes it. See `records.Record`."""

    origin: bytes
    key: Key
    epoch: int
    taken: int
    at_ns: int  # since 1970
    numbered: bool
    ended: bool
    nonce: bytes
    state: bytes | Rows
    answers: Sequence[Kept]

    def record(self) -> bytearray:
        """As a store holds it."""
        state = self.state
        if isinstance(state, Rows):
            row = state.row
            state = b"".join([states[row * size : (row + 1) * size] for states, size in state.states])
        return records.pack(
            self.origin,
            self.key,
            self.epoch,
            self.taken,
            self.at_ns,
            numbered=self.numbered,
            ended=self.ended,
            nonce=self.nonce,
            state=state,
            answers=self.answers,
        )


class Changes:
    """Of one model, since they were last taken: the last one of each sequence, None of one that has left nothing.

    `wall_ns` gives nanoseconds since 1970. Guarded by the lock of `serving.batching.lanes`.
    """

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self.wall_ns = wall_ns
        self._of: dict[Key, Change | None] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def note(self, key: Key, change: Change | None) -> None:
        """From now on this holds."""
        self._of[key] = change

    def forget(self, key: Key) -> None:
        """Nothing is to be written of it."""
        self._of.pop(key, None)

    def take(self) -> Mapping[Key, Change | None]:
        """What is to be written, once."""
        taken, self._of = self._of, {}
        return taken
