"""What is known of each model and of each of its versions, and the sentences about it.

Entries are the manager's own and are guarded by its lock, which every public method of `ModelEntry` takes; what leaves the
lifecycle is a `VersionStatus`, which never changes. Counts belong to a version and a backend, not to what is loaded, so
that no counter falls back to zero when backends are swapped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from serving.batching.lanes import Lanes
from serving.batching.model import Lease, Model
from serving.clock import SYSTEM, Clock
from serving.errors import InvalidRequest
from serving.lifecycle.comparison import ShadowCounts
from serving.lifecycle.dealer import Dealer
from serving.lifecycle.failover import Failover
from serving.lifecycle.shadow import Shadow
from serving.lifecycle.statuses import SequenceStatus, State, VersionStatus
from serving.loading.request import Loaded
from serving.repository.routes import CANARY, STABLE, Routes
from serving.repository.sent_files import Override
from serving.sequences.counts import SequenceCounts
from serving.sequences.live import Sequences
from serving.telemetry.counters import ModelMetrics


@dataclasses.dataclass(kw_only=True)
class VersionEntry:
    """One version that is known; see `VersionStatus`.

    `identity` is what it was loaded from. A version is `required` when it belongs to the first load; what is loaded later takes
    nothing away from what serves.
    """

    name: str
    version: str = ""
    state: State = ""
    reason: str = ""
    loaded: Loaded | None = None
    identity: object = None
    required: bool = False
    failover: Failover | None = None
    shadow: Shadow | None = None
    sequences: Sequences | None = None
    sequence_counts: SequenceCounts = dataclasses.field(default_factory=SequenceCounts)
    counts: Mapping[str, ModelMetrics] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> Model | None:
        """What answers, if anything does."""
        return self.loaded.model if self.loaded else None

    def leases(self, count: int) -> list[Lease]:
        """So many leases on what answers; none while nothing does."""
        if self.state != "READY" or self.loaded is None:
            return []
        return self.loaded.model.leases(count, self.shadow)

    def status(self) -> VersionStatus:
        """What it is now."""
        model = self.model
        return VersionStatus(
            name=self.name,
            version=self.version,
            state=self.state,
            reason="; ".join(filter(None, (self.reason, model.touching if model else ""))),
            backend=model.backend if model else "",
            verified=bool(model and model.verified),
            alive=model.alive if model else None,
            required=self.required,
            depth=model.depth if model else 0,
            queue_bytes=model.queue.size if model else 0,
            touching=model.touching if model else "",
            broken=self.failover.broken_backends() if self.failover else (),
            counts=self.counts,
            sequences=SequenceStatus.of(self.sequences, self.sequence_counts) if self.sequences else None,
            measured=self.loaded.order.measured if self.loaded else (),
        )


class ModelEntry:
    """One model that is known. `loading` is held while it is loaded or unloaded, by a loader thread; `lock` for a moment."""

    def __init__(self, name: str, lock: AbstractContextManager[Any] | None = None, clock: Clock = SYSTEM) -> None:
        self.name = name
        self.loading = clock.lock()
        self.lock = lock or clock.lock()  # guards what follows
        self.holders = 0  # threads that hold it or wait for it
        self.entries: dict[str, VersionEntry] = {}
        self.shadow: Shadow | None = None
        self.lanes: Lanes | None = None  # since it has had a stateful version
        self.leaving: dict[Sequences, Model] = {}  # what still answers for sequences of versions that go
        self._routes = Routes()
        self._canary = Dealer(0)
        self._overrides: list[Override] = []  # files that were sent, and that something here was loaded from
        self._shadow_counts: dict[tuple[str, str], ShadowCounts] = {}  # by version and shadow

    def entry(self, version: str) -> VersionEntry:
        """The entry of a version, made if there is none."""
        with self.lock:
            return self.entries.setdefault(version, VersionEntry(name=self.name, version=version))

    def versions(self) -> list[str]:
        """The versions that are known."""
        with self.lock:
            return list(self.entries)

    @property
    def serves(self) -> bool:
        """Whether any version can answer."""
        with self.lock:
            return any(entry.loaded for entry in self.entries.values())

    def counts(self, version: str) -> Callable[[str], ModelMetrics]:
        """The counts of a version by backend; they go on where they were when a backend comes back."""

        def of(backend: str) -> ModelMetrics:
            with self.lock:
                entry = self.entry(version)
                metrics = entry.counts.get(backend) or ModelMetrics()
                entry.counts = {**entry.counts, backend: metrics}  # never changed in place: a status holds it
            return metrics

        return of

    def shadow_counts(self, shadow: str) -> dict[str, ShadowCounts]:
        """The counts of a shadow for each version that it follows; they go on where they were."""
        with self.lock:
            return {
                model.version: self._shadow_counts.setdefault((model.version, shadow), ShadowCounts())
                for model in self.followed()
            }

    @property
    def routes(self) -> Routes:
        """How requests are routed."""
        with self.lock:
            return self._routes

    def adopt(self, routes: Routes) -> None:
        """From now on requests are routed so."""
        with self.lock:
            self._routes, self._canary = routes, Dealer(routes.canary_share)

    def leases_of(self, home: Sequences) -> Lease | None:
        """A lease on what answers for the sequences of a version; None while nothing does."""
        with self.lock:
            for entry in self.entries.values():
                if entry.sequences is home and entry.state == "READY" and entry.loaded:
                    return entry.loaded.model.lease()
            leaving = self.leaving.get(home)
            return leaving.lease() if leaving else None

    def default(self, *, dealt: bool = True) -> VersionEntry | None:
        """Who answers a request that names no version: what is labelled stable, but for a canary's share; else the highest.

        One that is not `dealt` is none of those that the canary has a share of.
        """
        with self.lock:
            labels = self._routes.labels
            if STABLE in labels:
                label = CANARY if dealt and self._canary() else STABLE
                if entry := self._ready(str(labels[label])) or self._ready(str(labels[STABLE])):
                    return entry
            ready = self._all_ready()
            return ready[0] if len(ready) == 1 else max(ready, key=lambda entry: int(entry.version), default=None)

    @property
    def deals(self) -> bool:
        """Whether requests that name no version are dealt, one by one."""
        with self.lock:
            return self._routes.canary_share > 0

    def keep(self, override: Override) -> None:
        """Files that a client has sent, to be removed when nothing was loaded from them any more."""
        with self.lock:
            self._overrides.append(override)

    def tidy(self, *, everything: bool = False) -> None:
        """Removes the files that nothing was loaded from any more, or, at the very end, whoever still reads them."""
        with self.lock:
            used = [entry.loaded.request.repository for entry in self.entries.values() if entry.loaded]
            gone = [one for one in self._overrides if everything or not any(one.repository is each for each in used)]
            self._overrides = [one for one in self._overrides if one not in gone]
        for override in gone:
            override.discard()

    def followed(self) -> list[Model]:
        """The models whose requests a shadow gets copies of: all but the version that is the shadow itself."""
        with self.lock:
            shadow = self._routes.shadow
            ready = sorted(self._all_ready(), key=lambda entry: int(entry.version))
            if shadow is None or shadow.version is None:
                stable = self._ready(str(self._routes.labels.get(STABLE, "")))
                chosen = [stable] if stable else ready[-1:]
            else:
                chosen = [entry for entry in ready if int(entry.version) != shadow.version or shadow.backend]
            return [entry.loaded.model for entry in chosen if entry.loaded]

    def statuses(self) -> list[VersionStatus]:
        """What each version is now."""
        with self.lock:
            return [entry.status() for entry in self.entries.values()]

    def _all_ready(self) -> list[VersionEntry]:
        return [entry for entry in self.entries.values() if entry.state == "READY" and entry.loaded]

    def _ready(self, version: str) -> VersionEntry | None:
        entry = self.entries.get(version)
        return entry if entry and entry.state == "READY" and entry.loaded else None


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
