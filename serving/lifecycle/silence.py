"""When a client has asked last: what is better done while nobody waits looks here."""

from __future__ import annotations

from serving.clock import SYSTEM, Clock


class Silence:
    """Broken by each request, from any thread."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self.broken_ns = clock.now_ns()  # when it was, last; of the clock

    def broken(self) -> None:
        """Somebody asks."""
        self.broken_ns = self._clock.now_ns()

    def lacks(self, seconds: float) -> float:
        """How many seconds more nobody may ask until it has lasted so long; 0 if it has."""
        return self._clock.seconds_until(self.broken_ns + int(seconds * 1e9))
