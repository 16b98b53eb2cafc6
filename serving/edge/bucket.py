"""How often something may happen: a token bucket."""

from __future__ import annotations


class Bucket:
    """So many at once, and so many a second after that."""

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = self._left = float(burst)
        self._rate = rate
        self._since = 0

    def take(self, now: int) -> bool:
        """One more at `now`, in nanoseconds; False when it is one too many."""
        if self._since:
            self._left = min(self._burst, self._left + (now - self._since) / 1e9 * self._rate)
        self._since = now
        self._left -= 1
        return self._left >= 0
