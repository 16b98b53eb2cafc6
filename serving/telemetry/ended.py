"""A request has ended: the one record of it, and who is told: counts, the access log, later traces.

Answers are counted once a batch, before any of them leaves (`ModelMetrics.answered`), so that no client sees its answer
before the statistics do. Everything else about an ended request happens here.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
from collections.abc import Callable, Sequence

from serving.telemetry.counters import SUCCESS, ModelMetrics
from serving.telemetry.timeline import Timeline

log = logging.getLogger(__name__)


@dataclasses.dataclass(slots=True)
class Ended:
    """One request that has found its model and has ended.

    `outcome` is one of `counters.OUTCOMES`, `code` the name by which the client learnt of it, `message` why it failed,
    `at_ns` when that was known. A step of a sequence has the id of that, others none.
    """

    model: str
    version: str
    request_id: str
    outcome: str
    code: str
    message: str
    timeline: Timeline
    at_ns: int
    sequence: int | str = ""

    @property
    def duration_ns(self) -> int:
        """From the arrival of its bytes to its end."""
        return self.at_ns - self.timeline.received


class Recorder:
    """Tells of ended requests, from any thread. `access_log` is the share of them that is logged; `draw` decides which.

    `tells_of_answers` says whether it wants to hear of requests that were answered. `refused` counts, by code, calls that were
    turned away before any model was found: from 0 for each of `refusals`.
    """

    def __init__(
        self, access_log: float = 0.0, refusals: Sequence[str] = (), draw: Callable[[], float] = random.random
    ) -> None:
        self._access_log = access_log
        self._draw = draw
        self.tells_of_answers = access_log > 0
        self._lock = threading.Lock()  # held to count in the next one
        self.refused = dict.fromkeys(refusals, 0)

    def ended(self, request: Ended, metrics: ModelMetrics) -> None:
        """A request has ended; `metrics` are those of the model that answered, or would have."""
        if request.outcome != SUCCESS:
            metrics.refused(request.outcome, request.duration_ns)
        if self._access_log and self._draw() < self._access_log:
            fields = {
                "model": request.model,
                "version": request.version,
                "request_id": request.request_id,
                "code": request.code,
                "duration_ms": round(request.duration_ns / 1e6, 3),
            }
            if request.sequence:
                fields["sequence"] = request.sequence
            log.info(request.message or "request", extra={"fields": fields})

    def turned_away(self, code: str) -> None:
        """A call was turned away before any model was found."""
        with self._lock:
            self.refused[code] = self.refused.get(code, 0) + 1
