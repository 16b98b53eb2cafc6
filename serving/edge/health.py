"""Whether the server is ready, for whoever wants to be told: the same answer for every name of a service."""

from __future__ import annotations

import threading
from collections.abc import Callable


class HealthState:
    """It is SERVING exactly while ServerReady says so. Every change calls each subscriber, outside the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._serving = False
        self._leaving = False
        self._subscribers: list[Callable[[], None]] = []

    @property
    def serving(self) -> bool:
        """Whether the server is ready now."""
        return self._serving

    @property
    def leaving(self) -> bool:
        """Whether the server leaves; then it never serves again."""
        return self._leaving

    def set(self, serving: bool) -> None:
        """Whether the server is ready."""
        self._change(serving, leaving=False)

    def leave(self) -> None:
        """Not serving for good."""
        self._change(False, leaving=True)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Calls `changed` after every change, from whichever thread made it, until the function returned is called.

        `changed` must look for itself, since two changes may be told out of order; and it must not block.
        """
        with self._lock:
            self._subscribers.append(changed)

        def unsubscribe() -> None:
            with self._lock:
                if changed in self._subscribers:
                    self._subscribers.remove(changed)

        return unsubscribe

    def _change(self, serving: bool, *, leaving: bool) -> None:
        with self._lock:
            self._leaving = self._leaving or leaving
            self._serving = serving and not self._leaving
            subscribers = list(self._subscribers)
        for changed in subscribers:
            changed()
