"""How fast a queue is served: what a client is told that finds no room in it."""

from __future__ import annotations

SHORTEST_MS, LONGEST_MS = 10, 10_000
SMOOTHING = 8  # batches that the pace is about the mean of


class Pace:
    """The nanoseconds between one request and the next that are taken while others wait. Guarded by the lock of its queue."""

    def __init__(self) -> None:
        self._request_ns = 0.0  # 0 until it is known
        self._since_ns: int | None = None  # somebody waits without a break

    def came(self, now_ns: int) -> None:
        """The first has come after nobody waited."""
        self._since_ns = now_ns

    def taken(self, requests: int, left: int, now_ns: int) -> None:
        """So many requests were taken, and so many wait on."""
        if self._since_ns is not None:
            each = (now_ns - self._since_ns) / requests
            self._request_ns += (each - self._request_ns) / SMOOTHING if self._request_ns else each
        self._since_ns = now_ns if left else None

    def told_ms(self, waiting: int, now_ns: int) -> int:
        """In how many milliseconds so many that wait will have been taken. Where nobody was taken yet, as long as that took."""
        since_ns = self._since_ns  # which another thread may change
        standing = now_ns - since_ns if since_ns is not None else 0
        return min(max(int(max(waiting * self._request_ns, standing) / 1e6), SHORTEST_MS), LONGEST_MS)
