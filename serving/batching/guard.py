"""What is done about a backend that raises: who is to blame, and who computes then."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from serving.batching.pending import Pending

HandOver = Callable[[list[Pending], str, Exception], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guard:
    """What to do about a backend that raises.

    A request is computed again until `failures` runs in a row have failed. Then `healthy()` replays on the backend what
    it is known to answer: if it does, the request is to blame. If not, or as soon as `lost(error)` gives a reason
    ("out_of_memory", "device_lost"), the backend is broken: `hand_over(requests, reason, error)` gets what it had, what
    waits and what still comes. All are called from the worker's thread, none of them raises, and `hand_over` does not
    block. Without `hand_over` every failure is the request's own.
    """

    failures: int = 3
    healthy: Callable[[], bool] = lambda: True
    lost: Callable[[Exception], str] = lambda error: ""
    hand_over: HandOver | None = None
    told: bool = True  # whether failures are logged
