"""What is remembered of sequences that have ended: why, and for a while what was answered to the last steps of numbered ones.

It belongs to the model and not to a version, so it is still told when the version has gone too. Plain data, guarded by the
lock of `serving.batching.lanes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from serving.sequences.records import Kept
from serving.sequences.step import Key

MOST_REMEMBERED = 65_536  # sequences that have ended, of which it is still known why
REMEMBERED_NS = 600 * 1_000_000_000  # for how long


class Gone(NamedTuple):
    """A sequence that has ended: why, when, its epoch, how many steps it had taken, and in which version it was."""

    reason: str
    at_ns: int
    epoch: int
    taken: int
    version: str


class Tomb(NamedTuple):
    """What is kept of a numbered sequence for a while after its end, so that what is sent again is answered."""

    gone: Gone
    nonce: bytes
    answers: Sequence[Kept]


class Ended(NamedTuple):
    """A sequence that has ended, for the log."""

    key: Key
    gone: Gone


class Memory:
    """Of one model; the oldest is forgotten first. `forgotten` is told of each whose answers are not kept any more."""

    def __init__(self, forgotten: Callable[[Key], None] = lambda _key: None) -> None:
        self._forgotten = forgotten
        self._gone: OrderedDict[Key, Gone] = OrderedDict()  # the oldest first
        self._tombs: OrderedDict[Key, Tomb] = OrderedDict()
        self.torn: set[int] = set()  # records of the store that cannot be read, by `records.number_of`

    def find(self, key: Key) -> Gone | None:
        """How it has ended, if that is still known."""
        tomb = self._tombs.get(key)
        return self._gone.get(key) or (tomb.gone if tomb else None)

    def tomb(self, key: Key, now_ns: int, tombstone_ns: int) -> Tomb | None:
        """What is kept of one, if it is not too old."""
        tomb = self._tombs.get(key)
        return tomb if tomb and now_ns - tomb.gone.at_ns < tombstone_ns else None

    def ended(self, key: Key, gone: Gone) -> None:
        """It has ended."""
        self._gone.pop(key, None)
        self._gone[key] = gone
        if len(self._gone) > MOST_REMEMBERED:
            self._gone.popitem(last=False)

    def keep(self, key: Key, tomb: Tomb, most: int) -> None:
        """What was answered to it is kept, of so many sequences at most."""
        self._tombs.pop(key, None)
        self._tombs[key] = tomb
        if len(self._tombs) > most:
            self._forgotten(self._tombs.popitem(last=False)[0])

    def discard(self, key: Key) -> None:
        """Nothing is known of it."""
        self._gone.pop(key, None)
        self._tombs.pop(key, None)

    def lives(self, key: Key, *, anew: bool) -> None:
        """It lives after all: `anew`, or in another version."""
        self._gone.pop(key, None)
        if anew:
            self._tombs.pop(key, None)

    def forget(self, now_ns: int, tombstone_ns: int) -> None:
        """What was remembered for long enough."""
        while self._tombs and now_ns - next(iter(self._tombs.values())).gone.at_ns >= tombstone_ns:
            self._forgotten(self._tombs.popitem(last=False)[0])
        while self._gone and now_ns - next(iter(self._gone.values())).at_ns >= REMEMBERED_NS:
            self._gone.popitem(last=False)

    def next_ns(self, tombstone_ns: int) -> list[int]:
        """When something is to be forgotten next."""
        tombs = [next(iter(self._tombs.values())).gone.at_ns + tombstone_ns] if self._tombs else []
        return tombs + ([next(iter(self._gone.values())).at_ns + REMEMBERED_NS] if self._gone else [])
