"""Models that answer no longer: each drains and is closed on a thread of its own, whatever the others do."""

from __future__ import annotations

from collections.abc import Callable

from serving.batching.model import Model
from serving.clock import SYSTEM, Clock
from serving.machine import memory


class Retirement:
    """Drains and closes models that nobody can lease any more."""

    def __init__(self, clock: Clock = SYSTEM, give_back: Callable[[], None] = memory.give_back) -> None:
        self._clock = clock
        self._give_back = give_back  # what is done when one is closed, for the memory that it has left
        self._lock = clock.lock()
        self._retiring: dict[Model, None] = {}  # in the order in which they came

    def retire(self, model: Model, then: Callable[[], None] = lambda: None) -> None:
        """Begins to drain a model; `then` is called when it is closed."""

        def close() -> None:
            try:
                model.close()
            finally:
                with self._lock:
                    self._retiring.pop(model, None)
                then()
                self._give_back()

        with self._lock:
            self._retiring[model] = None
        self._clock.start(close, f"retiring {model.name}")

    def models(self) -> list[Model]:
        """Those that are not closed yet."""
        with self._lock:
            return list(self._retiring)
