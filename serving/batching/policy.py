"""What may share a batch, and how long to wait for company: plain data, decided in `serving.repository.queue_policies`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

MIB = 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """What one priority level takes in, and what becomes of a request that waits too long in it.

    `max_requests` bounds those that wait. `timeout_ns` is how long one may wait, 0 for as long as it takes; where
    `allows_less` a request may ask for less. One whose time is up is refused; with `delays` it goes behind its level instead.
    """

    max_requests: int = 1024
    timeout_ns: int = 0
    allows_less: bool = False
    delays: bool = False

    def patience_ns(self, asked_ns: int) -> int:
        """How long a request may wait that has asked for so long; 0 for as long as it takes."""
        if asked_ns <= 0 or not self.allows_less:
            return self.timeout_ns
        return min(asked_ns, self.timeout_ns) if self.timeout_ns else asked_ns


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """What may share a batch, how long to wait for company, and who waits.

    `max_rows` bounds a batch; `max_delay_ns` is how long the first in line waits for it to fill; with `preferred_rows`
    a batch of exactly such a size goes at once and others wait the delay out. Without `dynamic` every request is computed
    alone. Of the steps of a batch of unequal lengths at most the share `max_padding_ratio` is padding.

    Requests of the lowest of so many `levels` are served first; the limits of a level are those of `level_queues`, or `queue`.
    One that names no level has the `default_level`. `max_queue_bytes` bounds what waits in all levels together. They hold for
    the model, however many instances it has. With `keeps_order` answers leave in the order in which requests have come.
    """

    max_rows: int = 64
    max_delay_ns: int = 0
    preferred_rows: tuple[int, ...] = ()
    dynamic: bool = True
    max_padding_ratio: float = 0.5
    queue: QueuePolicy = QueuePolicy()
    levels: int = 1
    default_level: int = 1
    level_queues: Mapping[int, QueuePolicy] = dataclasses.field(default_factory=dict)
    max_queue_bytes: int = 256 * MIB
    keeps_order: bool = False

    def queue_of(self, level: int) -> QueuePolicy:
        """What holds for a level."""
        return self.level_queues.get(level, self.queue)

    def level_of(self, priority: int) -> int:
        """The level of a request that asks for this priority; the default one where that is none."""
        return priority if 1 <= priority <= self.levels else self.default_level

    @property
    def arrival_alone(self) -> bool:
        """Whether requests are served in the order of their arrival, and nobody's time in the queue is limited."""
        return self.levels == 1 and not (self.queue_of(1).timeout_ns or self.queue_of(1).allows_less)
