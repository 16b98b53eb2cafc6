"""What the manager knows of each model and of each of its versions: plain data, and the sentences about it.

Everything here is guarded by the manager's lock. Counts belong to a version and a backend, not to what is loaded, so
that no counter falls back to zero when backends are swapped.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from serving.batching.model import Model
from serving.errors import InvalidRequest
from serving.lifecycle.failover import Failover
from serving.lifecycle.shadow import Shadow, ShadowCounts
from serving.repository.routes import CANARY, STABLE, Dealer, Routes
from serving.repository.sent_files import Override
from serving.telemetry.counters import ModelMetrics

State = Literal["LOADING", "READY", "UNLOADING", "UNAVAILABLE", ""]


@dataclasses.dataclass(kw_only=True)
class VersionEntry:
    """One version that is known. `version` is empty for a model whose versions could not even be listed.

    `identity` is what it was loaded from. A version is `required` when it belongs to the first load; what is loaded later takes
    nothing away from what serves.
    """

    name: str
    version: str = ""
    state: State = ""
    reason: str = ""
    model: Model | None = None
    identity: object = None
    required: bool = False
    failover: Failover | None = None
    counts: Mapping[str, ModelMetrics] = dataclasses.field(default_factory=dict)

    @property
    def broken(self) -> list[str]:
        """The backends that another one stands in for, as people are told of them."""
        return [str(candidate) for candidate in list(self.failover.broken)] if self.failover else []

    @property
    def backend(self) -> str:
        return self.model.backend if self.model else ""

    @property
    def verified(self) -> bool:
        return bool(self.model and self.model.verified)

    def queue_depth(self) -> int:
        return self.model.depth if self.model else 0


class ModelEntry:
    """One model that is known. `loading` is held while it is loaded or unloaded, by a loader thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loading = threading.RLock()
        self.holders = 0  # threads that hold it or wait for it
        self.entries: dict[str, VersionEntry] = {}
        self.overrides: list[Override] = []  # files that were sent, and that something here was loaded from
        self.routes = Routes()
        self.shadow: Shadow | None = None
        self.shadow_counts: dict[tuple[str, str], ShadowCounts] = {}  # by version and shadow
        self._canary = Dealer(0)

    def entry(self, version: str) -> VersionEntry:
        """The entry of a version, made if there is none."""
        return self.entries.setdefault(version, VersionEntry(name=self.name, version=version))

    def counts(self, version: str) -> Callable[[str], ModelMetrics]:
        """The counts of a version by backend; they go on where they were when a backend comes back."""
        entry = self.entry(version)

        def of(backend: str) -> ModelMetrics:
            metrics = entry.counts.get(backend) or ModelMetrics()
            entry.counts = {**entry.counts, backend: metrics}  # never changed in place: scrapes read it
            return metrics

        return of

    def adopt(self, routes: Routes) -> None:
        """From now on requests are routed so."""
        self.routes, self._canary = routes, Dealer(routes.canary_share)

    def default(self) -> Model | None:
        """Who answers a request that names no version: what is labelled stable, but for a canary's share; else the highest."""
        labels = self.routes.labels
        if STABLE in labels:
            label = CANARY if self._canary() else STABLE
            if model := self._ready(str(labels[label])) or self._ready(str(labels[STABLE])):
                return model
        return max(self._all_ready(), key=lambda model: int(model.version), default=None)

    def tidy(self) -> None:
        """Removes the files that nothing was loaded from any more."""
        used = [entry.model.wanted.repository for entry in list(self.entries.values()) if entry.model]
        for override in [each for each in self.overrides if not any(each.repository is one for one in used)]:
            self.overrides.remove(override)
            override.discard()

    def followed(self) -> list[Model]:
        """The models whose requests a shadow gets copies of: all but the version that is the shadow itself."""
        shadow = self.routes.shadow
        ready = sorted(self._all_ready(), key=lambda model: int(model.version))
        if shadow is None or shadow.version is None:
            stable = self._ready(str(self.routes.labels.get(STABLE, "")))
            return [stable] if stable else ready[-1:]
        return [model for model in ready if int(model.version) != shadow.version or shadow.backend]

    def _all_ready(self) -> list[Model]:
        return [entry.model for entry in list(self.entries.values()) if entry.state == "READY" and entry.model]

    def _ready(self, version: str) -> Model | None:
        entry = self.entries.get(version)
        return entry.model if entry and entry.state == "READY" else None


def in_order(entries: Iterable[VersionEntry]) -> list[VersionEntry]:
    """By name and version."""
    return sorted(entries, key=lambda entry: (entry.name, int(entry.version or 0)))


def can_answer(entries: Iterable[VersionEntry]) -> bool:
    """Whether each model of the first load can answer with one of its versions, and nothing that is to answer has died."""
    entries = list(entries)
    live = {entry.name for entry in entries if entry.model and entry.model.alive}
    lacking = any(entry.required and entry.name not in live for entry in entries)
    return not lacking and all(entry.model is None or entry.model.alive for entry in entries)


def because(*entries: VersionEntry) -> str:
    """The states of versions that cannot answer, and the reasons of those that have one."""
    states = dict.fromkeys(f"{entry.state}{': ' if entry.reason else ''}{entry.reason}" for entry in entries)
    return f" ({'; '.join(states)})" if states else ""


def parse_version(version: str) -> str:
    """A version as a client may name it: empty, or a whole number. Raises `InvalidRequest` otherwise."""
    if not version:
        return ""
    negative = version.startswith("-")
    digits = version[negative:]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise InvalidRequest(
            f"failed to get model version from specified version string '{version[:40]}', "
            "version should be an integral value > 0"
        )
    if negative:
        raise InvalidRequest(f"invalid model version specified '{version}' , version should be an integral value > 0")
    return str(int(digits))
