"""The epochs of a server's sequences."""

from __future__ import annotations

import itertools
import time


class Epochs:
    """The one counter of a server's epochs, which never falls: it begins where the wall clock is, in microseconds.

    Where that was set back it begins `after` the last one that a store knows of.
    """

    def __init__(self, begin: int | None = None, *, after: int = 0) -> None:
        self._counter = itertools.count(max(time.time_ns() // 1000, after) if begin is None else begin)

    def __call__(self) -> int:
        return next(self._counter)
