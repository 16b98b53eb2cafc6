"""Exchanging what is in memory: loads, swaps, unloads, and the end of the server.

A new model is ready before the old one drains, and one that cannot be loaded leaves the old one serving. A model that
failed to load at start stays known, with its reason, and keeps the server from being ready: nobody should send traffic
to a replica that lacks a model. One that fails later, or of which another version answers, does not: a bad update must
not take a replica away.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence

from serving.batching.commits import Commits
from serving.batching.model import Model
from serving.clock import SYSTEM, Clock
from serving.errors import (
    InvalidRequest,
    LoadFailed,
    NotInRepository,
    NotReady,
    ServingError,
)
from serving.lifecycle import load_failures
from serving.lifecycle.catalogue import Catalogue
from serving.lifecycle.keeping import Keeping
from serving.lifecycle.load_failures import LoadFailures
from serving.lifecycle.retirement import Retirement
from serving.lifecycle.shadow import Shadow
from serving.lifecycle.silence import Silence
from serving.lifecycle.swaps import Swaps
from serving.lifecycle.versions import ModelEntry, VersionEntry
from serving.loading.request import Loaded
from serving.machine import memory
from serving.sequences.disk import Disk
from serving.sequences.live import Sequences
from serving.telemetry.counters import StoreCounts

log = logging.getLogger(__name__)

SHADOW_SECONDS = 0.5  # what a shadow gets to end in when the server leaves; nobody waits for its answer


class ModelManager(Catalogue):
    """Exchanges models; `serving.lifecycle.control` decides which.

    `on_change` is called, from whichever thread made the change, whenever readiness may have changed; `give_back` when a
    model has been closed, for the memory that it has left.
    """

    def __init__(
        self,
        on_change: Callable[[], None] = lambda: None,
        *,
        clock: Clock = SYSTEM,
        give_back: Callable[[], None] = memory.give_back,
        disk: Disk | None = None,
    ) -> None:
        super().__init__(clock)
        self._on_change = on_change
        self._unborn: dict[str, ModelEntry] = {}  # being loaded for the first time, and nothing to tell of yet
        self._loads = 0
        self._closed = False  # nothing is closed any more that is installed now
        self._retirement = Retirement(clock, give_back)
        self.failures = LoadFailures(clock)
        self.swaps = Swaps(clock)
        self.silence = Silence(clock)
        self._commits = Commits(disk, clock) if disk else None
        self._keeping = Keeping(clock, self._commits)
        self.closing = clock.event()
        self.left_computing = False  # whether a shadow was still busy when everything was closed

    # Exchanging models; on loader threads.

    @contextlib.contextmanager
    def loading(self, name: str) -> Iterator[ModelEntry]:
        """Holds a model while it is loaded or unloaded. Every error becomes its reason, and `LoadFailed` (or stays ours)."""
        with self._lock:
            model = self._models.get(name) or self._unborn.setdefault(name, ModelEntry(name, self._lock, self._clock))
            model.holders += 1
        try:
            with self.at_work(), model.loading:
                yield model
        except (LoadFailed, NotReady, InvalidRequest):
            raise
        except Exception as error:
            raise self.refuse(model, "", error) from error
        finally:
            with self._lock:
                model.holders -= 1
                if not model.holders:
                    self._unborn.pop(name, None)
            self._on_change()

    def announce(self, model: ModelEntry, version: str, identity: object) -> bool:
        """A version is about to be loaded; False if that very thing serves already."""
        with self._lock:
            self._models[model.name] = model
            model.entries.pop("", None)  # the failure to read what has now been read
            entry = model.entry(version)
            entry.required |= not self._started
            if entry.state == "READY" and entry.loaded and entry.identity == identity and not entry.loaded.fell_back:
                entry.reason = entry.loaded.remark
                return False
            if entry.loaded is None:
                entry.state, entry.reason = "LOADING", ""
        self._on_change()
        return True

    def install(
        self, model: ModelEntry, loaded: Loaded, why: str, identity: object, *, stands_in: bool = False
    ) -> None:
        """The switch: from now on this answers for its version, and what did drains.

        `why` is the reason of the swap for the metric. Raises `NotReady`, the model closed, if the server leaves; what
        `stands_in` for a broken backend is still let in then, since requests wait for it that were taken before.
        """
        version, ended, home = loaded.model.version, None, None
        with self._lock:
            leaving = self._closed if stands_in else self.closing.is_set()
            if not leaving:
                entry = model.entry(version)
                old, entry.loaded, entry.state, entry.identity = entry.loaded, loaded, "READY", identity
                entry.reason = loaded.remark
                home = self._keeping.adopt(model, entry, loaded.model)
                if home and old:
                    model.leaving[home] = old.model
                if entry.failover and not stands_in:
                    ended, entry.failover = entry.failover, None
                    ended.stop()
                if entry.shadow and not entry.shadow.follow_on(old.model if old else None, loaded.model):
                    entry.shadow = None
                if loaded.damaged:
                    self.failures.count(model.name, version, load_failures.REPOSITORY)
        if leaving:
            loaded.model.close()
            raise NotReady("Server exiting")
        if ended:
            ended.leave()
        if old:
            self.swaps.happened(old.model, loaded.model, why)
            self._retire(model, old.model, home, loaded.model.sequences)
        self._on_change()

    def exchange(self, old: Model, new: Loaded, why: str, *, stands_in: bool = False) -> bool:
        """Lets `new` answer instead of `old`; False, the new one closed, if that does not serve any more. Else as `install`."""
        with self.loading(old.name) as model:
            identity = self.identity_of(old)
            if identity is None:
                new.model.close()
                return False
            self.install(model, new, why, identity, stands_in=stands_in)
            return True

    def tell(self, old: Loaded, new: Loaded) -> bool:
        """What is known of a model that serves has become more; False if it does not serve any more."""
        with self._lock:
            entry = self._entry_of(old.model)
            if entry is None or entry.loaded is not old:
                return False
            if entry.reason == old.remark:
                entry.reason = new.remark
            entry.loaded = new
            if new.damaged and not old.damaged:
                self.failures.count(old.model.name, old.model.version, load_failures.REPOSITORY)
            return True

    def refuse(self, model: ModelEntry, version: str, error: Exception) -> ServingError:
        """Keeps, logs and counts why something could not be loaded; returns the error for whoever asked for it."""
        if isinstance(error, LoadFailed):
            return error
        if isinstance(error, NotInRepository) and self._started and not model.versions():
            return error  # a name that a client has made up
        reason, kind = load_failures.in_words(error), load_failures.kind_of(error)
        if kind == load_failures.INTERNAL:
            log.error("loading failed in a way that was not foreseen", exc_info=error)
        with self._lock:
            self._models[model.name] = model
            serving = [entry.version for entry in model.entries.values() if entry.loaded]
            # What concerns the whole model is a remark on the versions that serve on.
            for each in serving if serving and not version else [version]:
                self._keep_reason(model.entry(each), reason, f"not replaced: {reason}")
                model.entry(each).required |= not self._started and not model.entry(each).loaded
            self.failures.count(model.name, version, kind)
        fields = {"model": model.name, "version": version or "none", "serving": ",".join(serving) or "none"}
        log.error("not loaded: %s", reason, extra={"fields": fields})
        self._on_change()
        if isinstance(error, NotInRepository):
            return error
        return LoadFailed(f"load failed for model '{model.name}': {f'version {version}: ' if version else ''}{reason}")

    def hold_back(self, model: ModelEntry, version: str, failed: Sequence[str]) -> None:
        """Keeps why a version that could be loaded is not let in: the versions `failed` could not."""
        why = f"version {', '.join(failed)} could not be loaded, and an update is made as a whole or not at all"
        with self._lock:
            self._keep_reason(model.entry(version), f"not let in: {why}", f"not replaced: {why}")
        self._on_change()

    def _keep_reason(self, entry: VersionEntry, reason: str, serving_on: str) -> None:
        if entry.loaded:
            entry.reason = serving_on
        else:
            entry.state, entry.reason = "UNAVAILABLE", reason

    def remove(self, model: ModelEntry, version: str, *, unloaded: bool) -> None:
        """A version leaves; what it has taken in is answered. If it was `unloaded` it stays known as such."""
        with self._lock:
            entry = model.entries.get(version)
            if entry is None or (entry.state == "UNLOADING" and entry.loaded is None):
                return  # it is leaving already, or has just left
            old, failover, home = entry.model, entry.failover, entry.sequences
            entry.state, entry.reason, entry.required = "UNLOADING", "", False
            entry.loaded = entry.identity = entry.failover = entry.shadow = entry.sequences = None
            if home and old:
                model.leaving[home] = old
            successor = model.default(dealt=False)

        def done() -> None:
            with self._lock:
                if entry.state != "UNLOADING":
                    return  # it has been loaded again meanwhile
                if unloaded and version:
                    entry.state, entry.reason, entry.counts = "UNAVAILABLE", "unloaded", {}
                else:
                    model.entries.pop(version, None)

        if failover:
            failover.stop()
            failover.leave()
        if old:
            self._retire(model, old, home, successor.sequences if successor else None, done)
        else:
            done()
        self._on_change()

    def _retire(
        self,
        model: ModelEntry,
        old: Model,
        home: Sequences | None,
        to: Sequences | None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """What answers no longer drains, as soon as its sequences have been seen out, if it leaves any."""
        if home is None:
            self._retirement.retire(old, done)
        else:
            self._keeping.see_out(model, home, old, to, lambda: self._retirement.retire(old, done))

    def follow(self, model: ModelEntry, shadow: Shadow | None, reason: str = "") -> None:
        """The shadow that gets copies of what its models are asked, instead of the one before, which ends.

        A `reason` says why there is none, and stands at the versions that it was to follow.
        """
        with self._lock:
            ended, model.shadow = model.shadow, shadow
            followed = model.followed()
            for entry in model.entries.values():
                entry.shadow = shadow if entry.model in followed and shadow else None
                if reason and entry.model in followed:
                    entry.reason = reason
            if shadow:
                shadow.follow(followed)
        if ended:
            self._clock.start(ended.close, f"end of the shadow of {model.name}")

    def started(self) -> None:
        """The first load is over."""
        self._started = True
        self._on_change()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Held while something is loaded."""
        with self._lock:
            self._loads += 1
        try:
            yield
        finally:
            with self._lock:
                self._loads -= 1

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
        until = self._clock.now_ns() + int(timeout_seconds * 1e9)
        self.closing.set()
        with self._lock:
            self._closed = True
            failovers = [entry.failover for entry in self._versions() if entry.failover]
            shadows = [model.shadow for model in self._models.values() if model.shadow]
            for entry in self._versions():
                entry.state = "UNLOADING"
        for failover in failovers:
            failover.stop()
            failover.leave()
        models = self._alive()  # each is closed, whatever the others do
        for lanes in self._all_lanes():
            lanes.end_with_server()
        closed = [model.close(self._clock.seconds_until(until)) for model in models]
        ended = [shadow.close(SHADOW_SECONDS) for shadow in shadows]
        self.left_computing = not all(ended)
        return all(closed)

    def wrote(self, model: ModelEntry, version: str) -> str:
        """The backend that has computed the sequences which the store holds of a version; empty where there is none."""
        if self._commits is None or model.entry(version).loaded:
            return ""
        return self._keeping.wrote(model.name, version)

    @property
    def store(self) -> StoreCounts | None:
        """What has been written of sequences; None where they are in memory alone."""
        return self._commits.counts if self._commits else None

    def close_store(self, timeout_seconds: float) -> None:
        """Writes what is left to be written, when everybody has their answer."""
        if self._commits:
            self._commits.close(timeout_seconds)

    def discard_files(self) -> None:
        """Removes the files that clients have sent, whoever still reads them; the last thing before the process ends."""
        with self._lock:
            models = [*self._models.values(), *self._unborn.values()]
        for model in models:
            model.tidy(everything=True)

    def _alive(self) -> list[Model]:
        with self._lock:
            serving = [entry.model for entry in self._versions() if entry.model]
            seen_out = [left for model in self._models.values() for left in model.leaving.values()]
            return list(dict.fromkeys([*serving, *seen_out, *self._retirement.models()]))
