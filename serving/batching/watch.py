"""A watch over rows that were found apart by trying: now and then a row of a batch is computed again, alone.

No number of trials proves that a file of others never mixes rows. So a share of its batches is looked at while it serves:
one row, drawn at random, goes back into the queue behind every request, is computed alone, and must be answered as it was
in company. The first difference ends batching for that version. What was answered before stays answered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from serving.batching.pending import Pending
from serving.clock import SYSTEM, Clock
from serving.errors import ServingError
from serving.signature.tensors import Tensors
from serving.telemetry.counters import DIFFERENT, DROPPED, FAILED, SAME, ModelMetrics
from serving.telemetry.timeline import Timeline

Run = Callable[[Tensors], Tensors]
# Called with what computes a row, the row, and what was answered to it; says how far apart the answers are, "" if they agree.
Differs = Callable[[Run, Tensors, Tensors], str]


class Watch:
    """Looks at this `share` of the batches of the model called `title`.

    `wait` queues a row behind all requests, and says whether there was room; `stop` is called at the first difference.
    Used by every worker of the model. `found` is the sentence about that difference, or empty.
    """

    def __init__(
        self,
        title: str,
        share: float,
        differs: Differs,
        metrics: ModelMetrics,
        *,
        wait: Callable[[Pending], bool],
        stop: Callable[[str], None],
        chance: Callable[[], float] = random.random,
        clock: Clock = SYSTEM,
        found: str = "",
    ) -> None:
        self._title = title
        self._share = share
        self._differs = differs
        self._metrics = metrics
        self._wait = wait
        self._stop = stop
        self._chance = chance
        self._clock = clock
        self.found = found

    def look(self, answered: Sequence[tuple[Pending, Tensors]], rows: int) -> None:
        """After a batch of `rows` has been answered: draws whether one of them is computed again, and which."""
        if rows < 2 or self.found or self._chance() >= self._share:
            return
        places = [(pending, outputs, row) for pending, outputs in answered for row in range(pending.rows)]
        pending, outputs, row = places[int(self._chance() * len(places))]
        if not self._wait(Watched(pending, outputs, row, self._clock.now_ns())):
            self._metrics.watched(DROPPED)

    def compare(self, watched: Watched, run: Run) -> None:
        """Computes the row alone, on the thread of a worker, and compares."""
        try:
            apart = self._differs(run, watched.inputs, watched.answered)
        except Exception:  # noqa: BLE001 - border: whatever a runtime raises says nothing about other rows, and is counted
            self._metrics.watched(FAILED)
            return
        self._metrics.watched(DIFFERENT if apart else SAME)
        if apart and not self.found:
            self.found = (
                f"rows of {self._title} touch each other: {apart}; from now on every request is computed alone; what was "
                "answered before in company may be wrong"
            )
            self._stop(self.found)


class Watched(Pending):
    """A row out of a batch that waits to be computed alone, and what was answered to it."""

    __slots__ = ("answered",)

    def __init__(self, pending: Pending, outputs: Tensors, row: int, now_ns: int) -> None:
        span = slice(row, row + 1)
        timeline = Timeline(now_ns)
        timeline.decoded = now_ns
        super().__init__(
            _NOBODY,
            {name: np.array(array[span]) for name, array in pending.inputs.items()},
            1,
            pending.steps,
            pending.outputs,
            pending.key,
            timeline,
        )
        self.answered: Tensors = {name: np.array(array[span]) for name, array in outputs.items()}


class _Nobody:
    """Waits for the answer of a row that is watched."""

    def encode(self, outputs: Tensors) -> None: ...

    def finish(self, error: ServingError) -> None: ...

    @staticmethod
    def finish_all(requesters: Sequence[Any]) -> None: ...

    def move(self, lease: object) -> None: ...


_NOBODY = _Nobody()
