"""Why a model could not be loaded: in words for the index and the log, and as counts by kind for the metrics."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

from serving.backends.base import trimmed
from serving.clock import SYSTEM, Clock
from serving.errors import (
    BackendUnavailable,
    ModelConfigError,
    NotInRepository,
    RepositoryError,
    VerificationFailed,
    as_text,
)

log = logging.getLogger(__name__)

MAX_REASON_CHARACTERS = 2000  # of an error in the index, whose answer would otherwise grow beyond what clients take

REPOSITORY, SHADOW, INTERNAL = "repository", "shadow", "internal"
KINDS = ("config", REPOSITORY, "backend_unavailable", "verification", "system", SHADOW, INTERNAL)
_KINDS: Mapping[type[Exception], str] = {
    ModelConfigError: "config",
    NotInRepository: REPOSITORY,
    RepositoryError: REPOSITORY,
    BackendUnavailable: "backend_unavailable",
    VerificationFailed: "verification",
    OSError: "system",
    MemoryError: "system",
}


def kind_of(error: Exception) -> str:
    """One of `KINDS`; the first row of the table that fits."""
    return next((kind for one, kind in _KINDS.items() if isinstance(error, one)), INTERNAL)


def in_words(error: Exception) -> str:
    """The reason as it is shown; never empty, text that can be sent, and not too much of it."""
    return trimmed(as_text(str(error) or type(error).__name__), MAX_REASON_CHARACTERS)


class LoadFailures:
    """Counts loads that failed, by model, version and kind. Counted and read from any thread."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._lock = clock.lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def count(self, model: str, version: str, kind: str) -> None:
        """A load has failed; `version` is empty for what concerns the whole model."""
        with self._lock:
            self._counts[model, version, kind] += 1

    def snapshot(self) -> dict[tuple[str, str, str], int]:
        """The counts now."""
        with self._lock:
            return dict(self._counts)
