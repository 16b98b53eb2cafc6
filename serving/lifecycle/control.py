"""Which models are loaded: as the repository has them at start, as it changes, or as clients ask (Triton's three modes).

Everything here runs on loader threads, one load of a model at a time. A configuration that a client sends replaces
`config.pbtxt` as a whole, as in Triton, and what it leaves out is completed from the files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.batching.model import Model
from serving.errors import (
    ControlDisabled,
    InvalidRequest,
    LoadFailed,
    NotInRepository,
    NotReady,
    RepositoryError,
    ServingError,
)
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.shadow import Shadow, ShadowCounts, Yielding, fits
from serving.lifecycle.versions import ModelEntry, VersionEntry, in_order
from serving.loading import loader
from serving.loading.loader import LoadRequest
from serving.loading.order import Measurements, ServerDefaults
from serving.machine import background
from serving.repository import changes, model_config, sent_files
from serving.repository.folders import Repository, VersionFolder
from serving.repository.model_config import OperatorConfig
from serving.repository.routes import Routes
from serving.telemetry.counters import ModelMetrics

log = logging.getLogger(__name__)

MODES = ("none", "poll", "explicit")
EVERY_MODEL = "*"
REQUESTED, CHANGED = "requested", "changed"  # why a backend is swapped, beside what has failed


class RepositoryControl:
    """Loads into `manager` what `repository` holds. `failures` in a row of a backend make it a broken one."""

    def __init__(
        self,
        manager: ModelManager,
        repository: Repository,
        placement: ServerDefaults,
        *,
        mode: str = "none",
        failures: int = 3,
    ) -> None:
        self._manager = manager
        self._repository = repository
        self._placement = placement
        self._mode = mode
        self._failures = failures
        self._measure = Measurements(allow_tf32=placement.allow_tf32)
        self._acted_on: changes.Seen = {}

    def start(self, names: Sequence[str] = ()) -> None:
        """The first load: everything, or in explicit mode the models named. Failures stay as the models' reasons."""
        try:
            there = self._repository.models()
        except OSError as error:
            log.error("the model repository cannot be read: %s", error)
            return
        with contextlib.suppress(OSError):  # what could not be looked at now is loaded again when it can be
            self._acted_on = self._look()  # before anything is loaded: what changes meanwhile is a change
        for name in self._at_start(there, names):
            with contextlib.suppress(ServingError):  # kept and logged as the model's reason
                self._load_from_repository(name, REQUESTED)
        self._manager.started()

    def _at_start(self, there: Sequence[str], names: Sequence[str]) -> list[str]:
        """Which models to load, those that are not there among them: what is missing is a failure."""
        if self._mode != "explicit":
            return list(there)
        asked = [name for name in names if name != EVERY_MODEL]
        return list(dict.fromkeys([*there, *asked] if EVERY_MODEL in names else asked))

    def load(self, name: str, configuration: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Loads a model as a client asks; returns when it can answer. Nothing happens if nothing has changed.

        `configuration` is a ModelConfig as JSON, in place of the file; `files` maps `VERSION/PATH` to contents. Raises
        `ControlDisabled`, `InvalidRequest`, `NotInRepository`, `NotReady` when the server leaves, or `LoadFailed`, and then
        what served before serves on.
        """
        self._check_allowed(name)
        if not files and self._manager.known(name) is None:
            try:
                self._check_there(name)  # nothing is kept of a name that only a client knows
            except OSError as error:
                raise NotInRepository(
                    f"failed to load '{name}', failed to poll from model repository: {error}"
                ) from error
        if configuration is None:
            with background.work():
                self._load_from_repository(name, REQUESTED)
            return
        with background.work(), self._manager.loading(name) as known:
            try:
                repository = self._repository
                if files:
                    known.overrides.append(override := sent_files.write(name, files))
                    repository = override.repository
                else:
                    self._check_there(name)
                self._load(known, repository, model_config.parse_json(configuration, name), REQUESTED)
            finally:
                known.tidy()

    def unload(self, name: str) -> None:
        """Stops serving a model; what it has taken in is answered. Raises `ControlDisabled` or `InvalidRequest`."""
        self._check_allowed(name)
        self._unload(name)

    def poll(self, seconds: float) -> None:
        """Follows what changes in the repository, until the server leaves."""
        acted_on = before = self._acted_on
        while not self._manager.closing.wait(seconds):
            try:
                now = self._look()
            except OSError as error:
                log.error("the model repository cannot be read: %s", error)
                continue
            actions = changes.decide(acted_on, before, now)
            for name in actions.unload:
                log.info("gone from the repository", extra={"fields": {"model": name}})
                self._unload(name)
            for name in actions.load:
                with background.work(), contextlib.suppress(ServingError):  # kept and logged as the model's reason
                    self._load_from_repository(name, CHANGED)
            changed = {name: now[name] for name in actions.load}
            acted_on = {name: seen for name, seen in {**acted_on, **changed}.items() if name not in actions.unload}
            before = now

    def index(self) -> list[VersionEntry]:
        """What the repository index shows: everything known, and by name alone what has never been loaded."""
        known = self._manager.entries()
        try:
            there = set(self._repository.models())
        except OSError as error:
            log.error("the model repository cannot be read: %s", error)
            there = set()
        unknown = [VersionEntry(name=name) for name in there - {entry.name for entry in known}]
        return in_order([*known, *unknown])

    def _look(self) -> changes.Seen:
        return {name: self._repository.fingerprint(name) for name in self._repository.models()}

    def _check_allowed(self, name: str) -> None:
        """Raises `ControlDisabled` or `InvalidRequest` unless clients may load and unload a model of that name."""
        if self._mode != "explicit":
            raise ControlDisabled(
                "explicit model load / unload is not allowed if polling is enabled, or if models are loaded at start alone: "
                f"this server runs with --model-control-mode {self._mode}; start it with explicit"
            )
        if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
            raise InvalidRequest(
                f"a model cannot be called '{name[:80]}': a name is that of a folder in the repository"
            )

    def _check_there(self, name: str) -> None:
        if name not in self._repository.models():
            raise NotInRepository(f"failed to load '{name}', failed to poll from model repository")

    def _load_from_repository(self, name: str, why: str) -> None:
        with self._manager.loading(name) as known:
            self._check_there(name)
            choices = model_config.parse(self._repository.config_text(name), name)
            self._load(known, self._repository, choices, why)
            known.tidy()

    def _load(self, known: ModelEntry, repository: Repository, choices: OperatorConfig, why: str) -> None:
        """Loads what is new of the chosen versions, lets it in, and retires the others.

        All of it or nothing, so that what is in force is one configuration; only where nothing served before, whatever can
        be loaded serves.
        """
        folders = {folder.number: folder for folder in repository.versions(known.name)}
        chosen = choices.versions(list(folders))
        serves = any(entry.model for entry in list(known.entries.values()))
        loaded, failures = self._load_new(known, repository, [folders[number] for number in chosen], choices)
        failed = next(reversed(failures.values()), None)
        if failed and serves:
            for model, _ in loaded:
                model.close()
                self._manager.hold_back(known, model.version, list(failures))
            raise failed
        self._let_in(known, loaded, why)
        if failed:
            self._manager.adopt(known, choices.routes.unshadowed())
            if loaded and isinstance(failed, LoadFailed):
                let_in = ", ".join(model.version for model, _ in loaded)
                raise LoadFailed(f"{failed} (version {let_in} could be loaded, and serves)") from failed
            raise failed
        changed = bool(loaded) or known.routes != choices.routes
        self._manager.adopt(known, choices.routes)  # first, so that no label leads to a version that has left
        for version in sorted(set(known.entries) - {str(number) for number in chosen}):
            self._manager.remove(known, version, unloaded=False)
        if changed:
            self._shadow(known, repository, folders, choices)

    def _load_new(
        self, known: ModelEntry, repository: Repository, folders: Sequence[VersionFolder], choices: OperatorConfig
    ) -> tuple[list[tuple[Model, object]], dict[str, ServingError]]:
        """Models of the versions that do not serve as they are now, with what each is made from; and what failed, by version."""
        labels = repository.labels(known.name)
        written = choices.written.SerializeToString(deterministic=True)
        loaded: list[tuple[Model, object]] = []
        failures: dict[str, ServingError] = {}
        for folder in folders:
            if self._manager.closing.is_set():
                for model, _ in loaded:
                    model.close()
                raise NotReady("Server exiting")
            version = str(folder.number)
            identity = (repository.path, folder.fingerprint(), written, labels)
            if not self._manager.announce(known, version, identity):
                continue
            try:
                wanted = LoadRequest(
                    name=known.name,
                    folder=folder,
                    choices=choices,
                    labels=labels,
                    placement=self._placement,
                    metrics=known.counts(version),
                    repository=repository,
                    measure=self._measure,
                    failures=self._failures,
                )
                loaded.append((loader.load(wanted), identity))
            except Exception as error:  # noqa: BLE001 - told, logged and counted, whatever it is
                failures[version] = self._manager.refuse(known, version, error)
        return loaded, failures

    def _let_in(self, known: ModelEntry, loaded: Sequence[tuple[Model, object]], why: str) -> None:
        """Installs them, in order. Raises `NotReady`, all that is not in by then closed, if the server leaves."""
        for number, (model, identity) in enumerate(loaded):
            try:
                self._manager.install(known, model, why, identity)
            except NotReady:
                for left, _ in loaded[number + 1 :]:
                    left.close()
                raise

    def _unload(self, name: str) -> None:
        if self._manager.known(name) is None:
            return
        with self._manager.loading(name) as known:
            self._manager.follow(known, None, [])
            self._manager.adopt(known, Routes())
            for version in list(known.entries):
                self._manager.remove(known, version, unloaded=True)
            known.tidy()
        log.info("unloaded", extra={"fields": {"model": name}})

    def _shadow(
        self, known: ModelEntry, repository: Repository, folders: Mapping[int, VersionFolder], choices: OperatorConfig
    ) -> None:
        """Starts the shadow that the configuration asks for, in place of the one that ran before. It never fails the model."""
        target, followed = choices.routes.shadow, known.followed()
        if target is None or not followed:
            self._manager.follow(known, None, [])
            return
        number = target.version or int(followed[0].version)
        placement = dataclasses.replace(
            self._placement,
            backend=target.backend or self._placement.backend,
            device=target.device or self._placement.device,
            fallback="none",
        )
        try:
            model = loader.load(
                LoadRequest(
                    name=known.name,
                    folder=folders[number],
                    choices=choices.for_shadow(),
                    labels=(),
                    placement=placement,
                    metrics=lambda backend: ModelMetrics(),
                    repository=repository,
                    measure=self._measure,
                    wrap=lambda backend: Yielding(backend, lambda: self._manager.waiting(known.name)),
                )
            )
            if misfit := next((why for each in followed if (why := fits(model.spec, each.spec))), ""):
                model.close()
                raise RepositoryError(misfit)
        except Exception as error:  # noqa: BLE001 - a shadow harms nobody
            log.error("the shadow %s does not run: %s", target, error, extra={"fields": {"model": known.name}})
            self._manager.no_shadow(known, str(number), followed, f"its shadow {target} does not run: {error}")
            return
        name = f"{model.version}/{model.candidate}"
        counts = {
            each.version: known.shadow_counts.setdefault((each.version, name), ShadowCounts()) for each in followed
        }
        self._manager.follow(known, Shadow(model, choices.routes.shadow_share, name, counts), followed)
        log.info("shadowed", extra={"fields": {"model": known.name, "by": name, "share": choices.routes.shadow_share}})
