"""What leaves the lifecycle of a version: what it was when somebody looked, which never changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from serving.backends.base import Measured
from serving.sequences.counts import SequenceCounts
from serving.sequences.live import Sequences
from serving.telemetry.counters import ModelMetrics

State = Literal["LOADING", "READY", "UNLOADING", "UNAVAILABLE", ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceStatus:
    """The sequences of a version: how many live, the bytes of their states, steps that wait, and the counts, which go on."""

    live: int
    state_bytes: int
    held: int
    counts: SequenceCounts

    @classmethod
    def of(cls, home: Sequences, counts: SequenceCounts) -> SequenceStatus:
        """What they are now."""
        return cls(live=home.live, state_bytes=home.state_bytes, held=home.held, counts=counts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionStatus:
    """One version as it was when somebody looked. `version` is empty for a model whose versions could not even be listed.

    `backend` is empty and `verified` False where nothing is loaded; `alive` says whether what is loaded can still answer,
    and is None then. `touching` says what its watch has seen of rows that
    touch each other. `broken` names the backends that another one stands in for. `counts` are by backend and go on counting.
    """

    name: str
    version: str = ""
    state: State = ""
    reason: str = ""
    backend: str = ""
    verified: bool = False
    alive: bool | None = None
    required: bool = False
    depth: int = 0
    queue_bytes: int = 0
    touching: str = ""
    broken: tuple[str, ...] = ()
    counts: Mapping[str, ModelMetrics] = dataclasses.field(default_factory=dict)
    sequences: SequenceStatus | None = None
    measured: Sequence[Measured] = ()


def in_order(statuses: Iterable[VersionStatus]) -> list[VersionStatus]:
    """By name and version."""
    return sorted(statuses, key=lambda status: (status.name, int(status.version or 0)))


def can_answer(statuses: Iterable[VersionStatus]) -> bool:
    """Whether each model of the first load can answer with one of its versions, and nothing that is to answer has died."""
    statuses = list(statuses)
    live = {status.name for status in statuses if status.alive}
    lacking = any(status.required and status.name not in live for status in statuses)
    return not lacking and all(status.alive is not False for status in statuses)
