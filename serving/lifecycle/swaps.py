"""How often another backend or device began to answer for a version, and why."""

from __future__ import annotations

import logging
from collections import Counter

from serving.batching.model import Model
from serving.clock import SYSTEM, Clock

log = logging.getLogger(__name__)

Swap = tuple[str, str, str, str, str]  # model, version, from, to, reason


class Swaps:
    """Counts and logs swaps. Counted and read from any thread."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._lock = clock.lock()
        self._counts: Counter[Swap] = Counter()

    def happened(self, old: Model, new: Model, why: str) -> None:
        """`new` answers in place of `old`; a model that was loaded anew in the same place is logged and not counted."""
        swap = (new.name, new.version, str(old.candidate), str(new.candidate), why)
        elsewhere = old.candidate != new.candidate
        if elsewhere:
            with self._lock:
                self._counts[swap] += 1
        fields = dict(zip(("model", "version", "from", "to", "reason"), swap, strict=True))
        threads = {"from_threads": old.candidate.threads, "to_threads": new.candidate.threads}
        log.info("swapped" if elsewhere else "loaded anew in the same place", extra={"fields": fields | threads})

    def snapshot(self) -> dict[Swap, int]:
        """The counts now."""
        with self._lock:
            return dict(self._counts)
