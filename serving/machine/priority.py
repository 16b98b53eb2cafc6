"""Who goes first when every core is wanted: the system's own order of threads, nice, which it keeps at every instant.

On Linux it belongs to each thread, and threads have that of the one that has started them. Without privileges a thread can be
sent back but not forward again, so only threads that are made for it are sent back. Elsewhere nothing happens.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

# Steps of nice. One is worth a quarter: a thread at 10 has a tenth of the time of one at 0 that wants as much.
LONG_CALLS = 10
SHADOWS = 15
LOWEST = 19

Result = TypeVar("Result")


def stand_behind(steps: int) -> None:
    """From now on the calling thread, and those that it starts, go so much later than they did."""
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    with contextlib.suppress(PermissionError):  # where the system call is forbidden, all stay equal
        os.setpriority(os.PRIO_PROCESS, thread, min(LOWEST, os.getpriority(os.PRIO_PROCESS, thread) + steps))


def started_behind(make: Callable[[], Result], steps: int = LONG_CALLS) -> Result:
    """What `make` makes, on a thread of its own, so that the threads that it starts go so much later; raises what it raises."""
    made: list[Result] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            stand_behind(steps)
            made.append(make())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            raised.append(error)

    thread = threading.Thread(target=run, name="starts threads")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return made[0]
