"""What is in memory: every version that is known, and leases on those that can answer.

States and the messages about them follow Triton, since its clients branch on them. This is the part that looks;
`serving.lifecycle.manager` changes.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.batching.lanes import Lanes
from serving.batching.model import Lease, Model
from serving.clock import SYSTEM, Clock
from serving.errors import InvalidRequest, NotReady, UnknownModel, UnknownVersion
from serving.lifecycle.failover import Failover
from serving.lifecycle.shadow import Shadow
from serving.lifecycle.statuses import VersionStatus, can_answer, in_order
from serving.lifecycle.versions import ModelEntry, VersionEntry, because, parse_version
from serving.loading.request import Loaded
from serving.sequences.step import Step


class Catalogue:
    """Hands out leases, and says what is known. Called from any thread."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._lock = clock.lock()  # guards what follows, entries included
        self._models: dict[str, ModelEntry] = {}
        self._started = False  # the first load is over

    def acquire(self, name: str, version: str = "") -> Lease:
        """A lease on the version asked for by number or label; if `version` is empty, on the one that the routes give.

        That is the highest that is ready, unless a canary takes its share. Raises `UnknownModel`, `UnknownVersion`,
        `NotReady`, or `InvalidRequest` for a version that is neither a number nor a label.
        """
        (lease,) = self.acquire_all(name, version, 1)
        return lease

    def acquire_all(self, name: str, version: str, count: int) -> list[Lease]:
        """A lease for each of so many requests, which all ask for this. Raises what `acquire` raises."""
        try:
            with self._lock:
                model = self._models.get(name)
                if count > 1 and model and model.deals and not version:
                    return [lease for _ in range(count) for lease in self._leases(name, version, 1)]
                return self._leases(name, version, count)
        except (UnknownModel, UnknownVersion) as error:
            if self._started:
                raise
            raise NotReady(f"Server not ready: models are being loaded. {error}") from error

    def lanes(self, name: str) -> Lanes | None:
        """The lanes of a model of which some version keeps state, or kept some; None of any other."""
        model = self._models.get(name)
        return model.lanes if model else None

    def refuse_starts(self) -> None:
        """The server leaves: no sequence begins any more."""
        for lanes in self._all_lanes():
            lanes.refuse_starts()

    def sequences_active(self, seconds: float) -> bool:
        """Whether any sequence has steps on their way, or has had one within so many seconds."""
        since_ns = self._clock.now_ns() - int(seconds * 1e9)
        return any(lanes.active(since_ns) for lanes in self._all_lanes())

    def _all_lanes(self) -> list[Lanes]:
        with self._lock:
            return [model.lanes for model in self._models.values() if model.lanes]

    def acquire_step(self, name: str, version: str, step: Step | None) -> Lease:
        """A lease for a step: on the version that its sequence is pinned to, and for a START where the routes lead.

        Raises what `acquire` raises, and `InvalidRequest` for a step that names another version than its sequence has.
        """
        lanes = self.lanes(name)
        home = None
        if lanes and step:
            home = lanes.home_of_start(step) if step.start else lanes.home_of(step.key)
        before = None
        while True:
            with self._lock:
                model = self._models.get(name)
                asked = parse_version(model.routes.version(version)) if model and version else ""
                pinned = model.leases_of(home) if model and home else None
                if pinned is None and (home is None or home is before):
                    return self._leases(name, version, 1, dealt=step is None or step.start)[0]
            assert lanes and step and home  # noqa: PT018 - who has a home has them all
            if pinned is None:
                before, home = home, lanes.home_of(step.key)  # it may have gone over to another version since
            elif asked and asked != home.version:
                pinned.release()
                raise InvalidRequest(
                    f"sequence {step.key[1]!r} of model '{name}' goes on in version {home.version}, where it has begun, but the "
                    f"request names version {version}: leave the version out, or start a new sequence"
                )
            else:
                return pinned

    def version_of(self, name: str, version: str) -> str:
        """The version that a client means, as versions are named here: the one behind a label, else the number that it has said.

        Raises `InvalidRequest` for a version that is neither.
        """
        model = self.known(name)
        return parse_version(model.routes.version(version) if model else version)

    @property
    def has_started(self) -> bool:
        """Whether the first load is over."""
        return self._started

    def ready(self) -> bool:
        """Whether the first load is over and every model that is to be served can answer."""
        return self._started and can_answer(self.entries())

    def entries(self) -> list[VersionStatus]:
        """Everything known as it is now, by name and version."""
        with self._lock:
            return in_order(status for model in self._models.values() for status in model.statuses())

    def shadows(self) -> list[tuple[str, str, Shadow]]:
        """Every shadow that runs, with the model and the version that it follows."""
        with self._lock:
            return [(one.name, one.version, one.shadow) for one in self._versions() if one.loaded and one.shadow]

    def serving(self) -> list[Loaded]:
        """What answers, by name and version; without versions whose backend has broken, which somebody else stands by."""
        with self._lock:
            entries = [one for model in sorted(self._models) for one in self._models[model].entries.values()]
            return [one.loaded for one in entries if one.loaded and (one.failover is None or one.failover.ended)]

    def known(self, name: str) -> ModelEntry | None:
        """What is known of a model."""
        with self._lock:
            return self._models.get(name)

    # Standing by broken backends.

    def failover(self, model: Model, made: Callable[[Loaded], Failover]) -> Failover | None:
        """What stands by the version that `model` answers for, made if there is none; None if it answers no longer."""
        with self._lock:
            entry = self._entry_of(model)
            if entry is None or entry.loaded is None:
                return None
            if entry.failover is None or entry.failover.ended:
                entry.failover = made(entry.loaded)
            return entry.failover

    def identity_of(self, model: Model) -> object:
        """What the version that `model` answers for was loaded from; None if it answers no longer."""
        with self._lock:
            entry = self._entry_of(model)
            return entry.identity if entry else None

    # Inside; the lock is held.

    def _leases(self, name: str, version: str, count: int, *, dealt: bool = True) -> list[Lease]:
        model = self._models.get(name)
        number = parse_version(model.routes.version(version) if model and version else version)
        if model is None:
            raise UnknownModel(f"Request for unknown model: '{name}' is not found")
        entry = model.entries.get(number) if number else model.default(dealt=dealt)
        if entry and (leases := entry.leases(count)):
            return leases
        if not number:
            raise UnknownVersion(
                f"Request for unknown model: '{name}' has no available versions{because(*model.entries.values())}"
            )
        if entry:
            raise NotReady(
                f"Request for unknown model: '{name}' version {number} is not at ready state{because(entry)}"
            )
        unlisted = [model.entries[""]] if "" in model.entries else []
        there = sorted(filter(None, model.entries), key=int)
        raise UnknownVersion(
            f"Request for unknown model: '{name}' version {number} is not found{because(*unlisted)}"
            + (f"; its versions are {', '.join(there)}" if there else "")
        )

    def _versions(self) -> list[VersionEntry]:
        return [entry for model in self._models.values() for entry in model.entries.values()]

    def _entry_of(self, model: Model) -> VersionEntry | None:
        known = self._models.get(model.name)
        entry = known.entries.get(model.version) if known else None
        return entry if entry and entry.model is model else None
