"""Work on a thread of its own, and a clock whose time passes by hand and that tells who begins to wait: no test sleeps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from serving.clock import Clock

Result = TypeVar("Result")


def beside(work: Callable[[], Result]) -> queue.SimpleQueue[Result]:
    """Does it on another thread; what comes of it can be got here."""
    results: queue.SimpleQueue[Result] = queue.SimpleQueue()
    threading.Thread(target=lambda: results.put(work()), daemon=True).start()
    return results


def asked_from_elsewhere(question: Callable[[], Result]) -> Result:
    """The answer that another thread gets. Raises `queue.Empty` if it gets none, as when a lock is held here that it needs."""
    return beside(question).get(timeout=10)


class HandClock(Clock):
    """Time stands still until `passes` is called. Whoever begins to wait for a condition says in `waits` for how long."""

    def __init__(self, now_ns: int = 0) -> None:
        super().__init__()
        self.now = now_ns
        self.waits: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._conditions: list[_HandCondition] = []

    def now_ns(self) -> int:
        return self.now

    def computed_ns(self) -> int:
        return self.now

    def condition(self) -> _HandCondition:
        made = _HandCondition(self)
        self._conditions.append(made)
        return made

    def lock(self) -> AbstractContextManager[Any]:
        return TellingLock()

    def somebody_waits(self, seconds: float) -> None:
        """Returns when somebody has begun to wait for so long."""
        waits = iter(lambda: self.waits.get(timeout=10), "never")
        next(waited for waited in waits if waited == seconds)

    def passes(self, seconds: float) -> None:
        """So much time passes; whoever waits looks at the clock."""
        self.now += int(seconds * 1e9)
        for condition in self._conditions:
            with condition:
                condition.notify_all()


class _HandCondition(threading.Condition):
    """A condition of such a clock. A wait ends by a notification, or at once when its time is up already."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None and timeout <= 0:
            return False
        self._clock.waits.put(timeout)  # the lock is held until the wait has begun
        assert super().wait(20), "nobody has told"
        return True

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        until = None if timeout is None else self._clock.now + int(timeout * 1e9)
        while not (result := predicate()):
            left = None if until is None else (until - self._clock.now) / 1e9
            if not self.wait(left):
                break
        return result


class TellingLock:
    """A lock that its holder may take again. `wanted` is set when another thread begins to wait for it."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.wanted.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
