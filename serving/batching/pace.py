"""How fast a queue is served: what a client is told that finds no room in it."""

from __future__ import annotations

import threading

SHORTEST_MS, LONGEST_MS = 10, 10_000
SMOOTHING = 8  # batches that the pace is about the mean of


class Pace:
    """What a request takes of a worker's time, from batch to batch. Guarded by the lock of its queue; called by workers."""

    def __init__(self) -> None:
        self._request_ns = 0.0  # 0 until it is known
        self._begun: dict[int, tuple[int, int]] = {}  # by worker: when it took how many
        self.sent_away = 0  # who will come again before long, and each a little later than the one before

    def taken(self, requests: int, now_ns: int) -> None:
        """This worker begins with so many requests."""
        self._begun[threading.get_ident()] = now_ns, requests
        self.sent_away = max(0, self.sent_away - requests)

    def back(self, now_ns: int) -> None:
        """This worker is through with what it took, if it took anything."""
        begun = self._begun.pop(threading.get_ident(), None)
        if begun:
            each = (now_ns - begun[0]) / begun[1]
            self._request_ns += (each - self._request_ns) / SMOOTHING if self._request_ns else each

    def told_ms(self, waiting: int, now_ns: int) -> int:
        """In how many milliseconds so many that wait will have been taken.

        It is no less than what the batch has taken by now that was begun first: that is all there is to go by when nothing was
        computed yet, or something takes longer than ever. From any thread.
        """
        begun = list(self._begun.values())
        drained_ns = waiting * self._request_ns / max(len(begun), 1)
        standing_ns = max([now_ns - since for since, _ in begun], default=0)
        return min(max(int(max(drained_ns, standing_ns) / 1e6), SHORTEST_MS), LONGEST_MS)
