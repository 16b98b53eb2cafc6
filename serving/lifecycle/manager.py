"""What is in memory: every version that is known, its state, and leases on those that can answer.

States and the messages about them follow Triton, since its clients branch on them. A new model is ready before the old
one drains, and one that cannot be loaded leaves the old one serving. A model that failed to load at start stays known,
with its reason, and keeps the server from being ready: nobody should send traffic to a replica that lacks a model. One
that fails later, or of which another version answers, does not: a bad update must not take a replica away.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from serving.batching.model import Lease, Model
from serving.batching.plan import Pending
from serving.errors import (
    BackendUnavailable,
    InvalidRequest,
    LoadFailed,
    ModelConfigError,
    NotInRepository,
    NotReady,
    RepositoryError,
    ServingError,
    UnknownModel,
    UnknownVersion,
    VerificationFailed,
)
from serving.lifecycle import failover
from serving.lifecycle.shadow import Shadow, fits
from serving.lifecycle.versions import ModelEntry, VersionEntry, because, can_answer, in_order, parse_version
from serving.machine import memory
from serving.repository.routes import Routes

log = logging.getLogger(__name__)

MAX_REASON_CHARACTERS = 2000  # of an error in the index, whose answer would otherwise grow beyond what clients take
SHADOW_SECONDS = 0.5  # what a shadow gets to end in when the server leaves; nobody waits for its answer

# How a failed load is counted.
LOAD_FAILURES = ("config", "repository", "backend_unavailable", "verification", "system", "shadow", "internal")
_KINDS: Mapping[type[Exception], str] = {
    ModelConfigError: "config",
    NotInRepository: "repository",
    RepositoryError: "repository",
    BackendUnavailable: "backend_unavailable",
    VerificationFailed: "verification",
    OSError: "system",
    MemoryError: "system",
}


class ModelManager:
    """Hands out leases and exchanges models; `serving.lifecycle.control` decides which.

    `on_change` is called, from whichever thread made the change, whenever readiness may have changed. A backend that has
    failed is tried again after `breaker_reset_seconds`.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None, *, breaker_reset_seconds: float = 30.0) -> None:
        self._on_change = on_change
        self._reset_seconds = breaker_reset_seconds
        self._lock = threading.Lock()  # guards what follows
        self._models: dict[str, ModelEntry] = {}
        self._unborn: dict[str, ModelEntry] = {}  # being loaded for the first time, and nothing to tell of yet
        self._retiring: set[Model] = set()
        self._loads = 0
        self._started = False
        self.closing = threading.Event()
        self._closed = False  # nothing is closed any more that is installed now
        self.left_computing = False  # whether a shadow was still busy when everything was closed
        self.swaps: Counter[tuple[str, str, str, str, str]] = Counter()  # model, version, from, to, reason
        self.load_failures: Counter[tuple[str, str, str]] = Counter()  # model, version, reason

    # Answering.

    def acquire(self, name: str, version: str = "") -> Lease:
        """A lease on the version asked for by number or label; if `version` is empty, on the one that the routes give.

        That is the highest that is ready, unless a canary takes its share. Raises `UnknownModel`, `UnknownVersion`,
        `NotReady`, or `InvalidRequest` for a version that is neither a number nor a label.
        """
        try:
            return self._lease(name, version)
        except (UnknownModel, UnknownVersion) as error:
            if self._started:
                raise
            raise NotReady(f"Server not ready: models are being loaded. {error}") from error

    def _lease(self, name: str, version: str) -> Lease:
        with self._lock:
            known = self._models.get(name)
            number = parse_version(known.routes.version(version) if known else version)
            if known is None:
                raise UnknownModel(f"Request for unknown model: '{name}' is not found")
            versions = known.entries
            if not number:
                model = known.default()
                if model is None:
                    raise UnknownVersion(
                        f"Request for unknown model: '{name}' has no available versions{because(*versions.values())}"
                    )
                return model.lease()
            entry = versions.get(number)
            if entry is None:
                unlisted = [versions[""]] if "" in versions else []
                raise UnknownVersion(
                    f"Request for unknown model: '{name}' version {number} is not found{because(*unlisted)}"
                )
            if entry.state != "READY" or entry.model is None:
                raise NotReady(
                    f"Request for unknown model: '{name}' version {number} is not at ready state{because(entry)}"
                )
            return entry.model.lease()

    def ready(self) -> bool:
        """Whether the first load is over and every model that is to be served can answer."""
        return self._started and can_answer(self.entries())

    def entries(self) -> list[VersionEntry]:
        """Everything known, by name and version."""
        with self._lock:
            return in_order(entry for known in self._models.values() for entry in known.entries.values())

    def shadows(self) -> list[tuple[str, str, Shadow]]:
        """Every shadow that runs, with the model and the version that it follows."""
        with self._lock:
            entries = [entry for known in self._models.values() for entry in known.entries.values()]
            return [(e.name, e.version, e.model.shadow) for e in entries if e.model and e.model.shadow]

    # Exchanging models; on loader threads.

    @contextlib.contextmanager
    def loading(self, name: str) -> Iterator[ModelEntry]:
        """Holds a model while it is loaded or unloaded. Every error becomes its reason, and `LoadFailed` (or stays ours)."""
        with self._lock:
            known = self._models.get(name) or self._unborn.setdefault(name, ModelEntry(name))
            known.holders += 1
            self._loads += 1
        try:
            with known.loading:
                yield known
        except (LoadFailed, NotReady, InvalidRequest):
            raise
        except Exception as error:
            raise self.refuse(known, "", error) from error
        finally:
            with self._lock:
                known.holders -= 1
                if not known.holders:
                    self._unborn.pop(name, None)
                self._loads -= 1
            self._on_change()

    def known(self, name: str) -> ModelEntry | None:
        """What is known of a model."""
        with self._lock:
            return self._models.get(name)

    def announce(self, known: ModelEntry, version: str, identity: object) -> bool:
        """A version is about to be loaded; False if that very thing serves already."""
        with self._lock:
            self._models[known.name] = known
            known.entries.pop("", None)  # the failure to read what has now been read
            entry = known.entry(version)
            entry.required |= not self._started
            if entry.state == "READY" and entry.model and entry.identity == identity and not entry.model.fell_back:
                entry.reason = _remark(entry.model)
                return False
            if entry.model is None:
                entry.state, entry.reason = "LOADING", ""
        self._on_change()
        return True

    def install(self, known: ModelEntry, model: Model, why: str, identity: object) -> None:
        """The switch: from now on this model answers for its version, and the one that did drains.

        `why` is the reason of the swap for the metric. Raises `NotReady`, the model closed, if the server leaves; what stands
        in for a broken backend is still let in, since requests wait for it that were taken before.
        """
        model.on_broken = self._on_broken
        ended = None
        with self._lock:
            entry = known.entry(model.version)
            stands_in = entry.failover is not None and entry.failover.is_mine()
            leaving = self._closed if stands_in else self.closing.is_set()
            if not leaving:
                old, entry.model, entry.state, entry.identity = entry.model, model, "READY", identity
                entry.reason = _remark(model)
                if entry.failover and not stands_in:
                    ended, entry.failover = entry.failover, None
                    ended.stop()
                model.shadow = (
                    old.shadow if old and old.shadow and not fits(old.shadow.model.spec, model.spec) else None
                )
                if model.damaged:
                    self.load_failures[known.name, model.version, "repository"] += 1
        if leaving:
            model.close()
            raise NotReady("Server exiting")
        if ended:
            ended.leave()
        if old:
            swapped = (known.name, model.version, str(old.candidate), str(model.candidate), why)
            if old.candidate != model.candidate:
                with self._lock:
                    self.swaps[swapped] += 1
            log.info(
                "swapped",
                extra={"fields": dict(zip(("model", "version", "from", "to", "reason"), swapped, strict=True))},
            )
            self._retire(old)
        self._on_change()

    def refuse(self, known: ModelEntry, version: str, error: Exception) -> ServingError:
        """Keeps, logs and counts why something could not be loaded; returns the error for whoever asked for it."""
        if isinstance(error, LoadFailed):
            return error
        if isinstance(error, NotInRepository) and self._started and not known.entries:
            return error  # a name that a client has made up
        reason = _in_short(str(error)) or type(error).__name__
        kind = next((kind for known_kind, kind in _KINDS.items() if isinstance(error, known_kind)), "internal")
        if kind == "internal":
            log.error("loading failed in a way that was not foreseen", exc_info=error)
        with self._lock:
            self._models[known.name] = known
            serving = [entry.version for entry in known.entries.values() if entry.model]
            # What concerns the whole model is a remark on the versions that serve on.
            for each in serving if serving and not version else [version]:
                entry = known.entry(each)
                if entry.model:
                    entry.reason = f"not replaced: {reason}"
                else:
                    entry.state, entry.reason = "UNAVAILABLE", reason
                    entry.required |= not self._started
            self.load_failures[known.name, version, kind] += 1
        fields = {"model": known.name, "version": version or "none", "serving": ",".join(serving) or "none"}
        log.error("not loaded: %s", reason, extra={"fields": fields})
        self._on_change()
        if isinstance(error, NotInRepository):
            return error
        return LoadFailed(f"load failed for model '{known.name}': {f'version {version}: ' if version else ''}{reason}")

    def hold_back(self, known: ModelEntry, version: str, failed: Sequence[str]) -> None:
        """Keeps why a version that could be loaded is not let in: the versions `failed` could not."""
        because = f"version {', '.join(failed)} could not be loaded, and an update is made as a whole or not at all"
        with self._lock:
            entry = known.entry(version)
            if entry.model:
                entry.reason = f"not replaced: {because}"
            else:
                entry.state, entry.reason = "UNAVAILABLE", f"not let in: {because}"
        self._on_change()

    def remove(self, known: ModelEntry, version: str, *, unloaded: bool) -> None:
        """A version leaves; what it has taken in is answered. If it was `unloaded` it stays known as such."""
        with self._lock:
            entry = known.entries.get(version)
            if entry is None or (entry.state == "UNLOADING" and entry.model is None):
                return  # it is leaving already, or has just left
            model, running = entry.model, entry.failover
            entry.state, entry.reason, entry.required = "UNLOADING", "", False
            entry.model = entry.identity = entry.failover = None

        def done() -> None:
            with self._lock:
                if entry.state != "UNLOADING":
                    return  # it has been loaded again meanwhile
                if unloaded and version:
                    entry.state, entry.reason, entry.counts = "UNAVAILABLE", "unloaded", {}
                else:
                    known.entries.pop(version, None)

        if running:
            running.stop()
            running.leave()
        if model:
            self._retire(model, done)
        else:
            done()
        self._on_change()

    def follow(self, known: ModelEntry, shadow: Shadow | None, followed: list[Model]) -> None:
        """The shadow that gets copies of what these models are asked, instead of the one before, which ends."""
        with self._lock:
            ended, known.shadow = known.shadow, shadow
            for entry in known.entries.values():
                if entry.model:
                    entry.model.shadow = shadow if entry.model in followed else None
        if ended:
            threading.Thread(target=ended.close, name=f"end of the shadow of {known.name}", daemon=True).start()

    def waiting(self, name: str) -> bool:
        """Whether anybody waits for a batch of this model."""
        with self._lock:
            known = self._models.get(name)
            return known is not None and any(entry.queue_depth() for entry in known.entries.values())

    def no_shadow(self, known: ModelEntry, version: str, followed: list[Model], reason: str) -> None:
        """Keeps and counts why `version` cannot be the shadow of these models; none follows them."""
        self.follow(known, None, [])
        with self._lock:
            self.load_failures[known.name, version, "shadow"] += 1
            for model in followed:
                known.entry(model.version).reason = reason

    def adopt(self, known: ModelEntry, routes: Routes) -> None:
        """From now on requests to this model are routed so."""
        with self._lock:
            known.adopt(routes)

    def started(self) -> None:
        """The first load is over."""
        self._started = True
        self._on_change()

    # Leaving.

    def busy(self) -> bool:
        """Whether any request that has found its model is not answered yet."""
        return any(model.metrics.in_flight for model in self._alive())

    @property
    def is_loading(self) -> bool:
        """Whether any model is being loaded."""
        return self._loads > 0

    def hurry(self) -> None:
        """No request waits for company any more; called when the server leaves."""
        self.closing.set()
        for model in self._alive():
            model.hurry()

    def close(self, timeout_seconds: float) -> bool:
        """Stops handing out leases, waits for those that are out, and frees every backend; False if time was too short."""
        until = time.monotonic() + timeout_seconds
        self.closing.set()
        with self._lock:
            self._closed = True
            knowns = list(self._models.values())
            entries = [entry for known in knowns for entry in known.entries.values()]
            failovers = [entry.failover for entry in entries if entry.failover]
            for entry in entries:
                entry.state = "UNLOADING"
            for each in failovers:
                each.stop()
        for each in failovers:
            each.leave()
        models = self._alive()
        closed = [model.close(max(0.0, until - time.monotonic())) for model in models]  # each, whatever the others do
        for known in knowns:
            if known.shadow and not known.shadow.close(SHADOW_SECONDS):
                self.left_computing = True
        return all(closed)

    def discard_files(self) -> None:
        """Removes the files that clients have sent, whoever still reads them; the last thing before the process ends."""
        with self._lock:
            knowns = [*self._models.values(), *self._unborn.values()]
        for known in knowns:
            for override in list(known.overrides):
                override.discard()

    # Inside.

    def _retire(self, model: Model, then: Callable[[], None] = lambda: None) -> None:
        """Drains and closes a model that nobody can lease any more, on a thread of its own."""

        def close() -> None:
            model.close()
            with self._lock:
                self._retiring.discard(model)
            then()
            memory.give_back()

        with self._lock:
            self._retiring.add(model)
        threading.Thread(target=close, name=f"retiring {model.name}", daemon=True).start()

    def _on_broken(self, model: Model, requests: list[Pending], reason: str, error: Exception) -> None:
        """Requests that a broken backend leaves: to whoever stands in for it, now or as soon as there is somebody."""

        def lease() -> Lease:
            return self.acquire(model.name, model.version)

        with self._lock:
            known = self._models.get(model.name)
            entry = known.entries.get(model.version) if known else None
            if entry and entry.model is model:
                taken = entry.failover is not None and entry.failover.take(requests, reason, error)
                if requests and not taken:
                    entry.failover = failover.Failover(model, self._reset_seconds, self._stand_in, lease, self._at_work)
                    entry.failover.take(requests, reason, error)
                return
        failover.forward(requests, lease)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Held while something is loaded that no call asked for."""
        with self._lock:
            self._loads += 1
        try:
            yield
        finally:
            with self._lock:
                self._loads -= 1

    def _stand_in(self, model: Model, broken: Model, why: str, note: str) -> bool:
        """Lets a model answer instead of the one that served; False if that one does not serve any more."""
        with self.loading(model.name) as known:
            with self._lock:
                entry = known.entries.get(model.version)
                identity = entry.identity if entry and entry.model is broken else None
            if identity is None:
                model.close()
                return False
            model.fell_back = note
            self.install(known, model, why, identity)
            return True

    def _alive(self) -> list[Model]:
        with self._lock:
            models = [e.model for known in self._models.values() for e in known.entries.values() if e.model]
            return [*models, *self._retiring]


def _in_short(reason: str) -> str:
    return reason if len(reason) <= MAX_REASON_CHARACTERS else f"{reason[:MAX_REASON_CHARACTERS]}..."


def _remark(model: Model) -> str:
    """What the index says of a version that serves."""
    wrong = "; ".join(f"{backend} cannot serve it: {why}" for backend, why in model.damaged.items())
    return model.fell_back or wrong or ("" if model.verified else "not verified: it has no golden samples")
