"""Time and threads, handed in: whatever waits takes a `Clock`, so that it can run in virtual time from one seed.

A server runs on `SYSTEM`. What stands above this file names neither `time.monotonic` nor `threading.Thread` where it
waits; so a simulation (`tests/simulation`) exchanges this one object and decides in which order everything happens.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Condition(Protocol):
    """As `threading.Condition`."""

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> Any: ...

    def wait(self, timeout: float | None = None) -> bool: ...

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any: ...

    def notify(self, n: int = 1) -> None: ...

    def notify_all(self) -> None: ...


class Event(Protocol):
    """As `threading.Event`."""

    def is_set(self) -> bool: ...

    def set(self) -> None: ...

    def wait(self, timeout: float | None = None) -> bool: ...


class Thread(Protocol):
    """As `threading.Thread`, once it has been started."""

    def join(self, timeout: float | None = None) -> None: ...

    def is_alive(self) -> bool: ...


class Clock:
    """The system's time and threads. A simulation overrides every method but `seconds_until` and `side_by_side`."""

    def __init__(self) -> None:
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Nanoseconds of the monotonic clock, that of `serving.telemetry.timeline.now_ns`."""
        return time.monotonic_ns()

    def computed_ns(self) -> int:
        """Nanoseconds for which the calling thread has had a processor; asking takes half a microsecond."""
        return time.thread_time_ns()

    def seconds_until(self, instant_ns: int) -> float:
        """How long it is until an instant of `now_ns`; 0 if that has passed."""
        return max(0.0, (instant_ns - self.now_ns()) / 1e9)

    def wall_ms(self, at_ns: int) -> int:
        """Milliseconds since 1970 of an instant of `now_ns`; the two clocks are set against each other once, at start."""
        return (at_ns + self._wall_offset_ns) // 1_000_000

    def wall_now_ns(self) -> int:
        """Nanoseconds since 1970 as the system has it now; it may be set, forwards or back."""
        return time.time_ns()

    def condition(self) -> Condition:
        """A condition with a lock of its own, which its holder may take again."""
        return threading.Condition()

    def lock(self) -> AbstractContextManager[Any]:
        """A lock that its holder may take again."""
        return threading.RLock()

    def event(self) -> Event:
        """An event that is not set."""
        return threading.Event()

    def side_by_side(self, work: Callable[[str], object], items: Iterable[str], threads: int, name: str) -> None:
        """Calls `work` with each of the items, begun in their order, on so many threads: this one, and others by that name."""
        waiting = deque(items)

        def go_on() -> None:
            while True:
                try:
                    item = waiting.popleft()
                except IndexError:
                    return
                work(item)

        others = [self.start(go_on, name) for _ in range(min(threads, len(waiting)) - 1)]
        go_on()
        for thread in others:
            thread.join()

    def start(self, work: Callable[[], object], name: str) -> Thread:
        """Runs `work` on a thread of its own, which does not keep the process alive."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread


SYSTEM = Clock()
