"""When a request crossed each border: one object that travels with it, stamped by the file that spends the time.

The same numbers feed the Prometheus histograms and ModelStatistics, which is why the two always agree. All stamps are
nanoseconds of one monotonic clock.
"""

from __future__ import annotations

import time

# Stage k lasts from stamp k to stamp k + 1.
STAGES = ("decode", "queue", "compute", "encode")

now_ns = time.monotonic_ns


class Timeline:
    """Stamps of one request, in nanoseconds of `now_ns`; 0 where it has not come to that border.

    `received`: the bytes are here. `decoded`: checked and queued. `started`: gathered into a batch. `computed`: the
    backend has answered. `encoded`: the answer's bytes are ready.
    """

    __slots__ = ("computed", "decoded", "encoded", "received", "started")

    def __init__(self, received: int) -> None:
        self.received = received
        self.decoded = self.started = self.computed = self.encoded = 0

    def stages(self) -> tuple[int, int, int, int]:
        """Nanoseconds spent in each of `STAGES`, for a request that was answered."""
        return (
            self.decoded - self.received,
            self.started - self.decoded,
            self.computed - self.started,
            self.encoded - self.computed,
        )
