"""Which models are loaded: as the repository has them at start, as it changes, or as clients ask (Triton's three modes).

Everything here runs on loader threads, one load of a model at a time. A configuration that a client sends replaces
`config.pbtxt` as a whole, as in Triton, and what it leaves out is completed from the files.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from serving.clock import SYSTEM, Clock
from serving.errors import (
    ControlDisabled,
    InvalidRequest,
    LoadFailed,
    NotInRepository,
    NotReady,
    RepositoryError,
    ServingError,
)
from serving.lifecycle.choosing import Choosing
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.shadows import Shadows
from serving.lifecycle.statuses import VersionStatus, in_order
from serving.lifecycle.versions import ModelEntry
from serving.loading import loader
from serving.loading.measurements import Measurements
from serving.loading.measuring import cpus_here
from serving.loading.order import ServerDefaults
from serving.loading.request import Loaded, LoadRequest, OnBroken
from serving.loading.touching import Touching
from serving.loading.trials import Trials, try_ahead
from serving.machine import background
from serving.repository import changes, labels, model_config, sent_files
from serving.repository.folders import Repository, VersionFolder
from serving.repository.operator_config import OperatorConfig
from serving.repository.repositories import TWICE, Repositories
from serving.repository.routes import Routes

log = logging.getLogger(__name__)

MODES = ("none", "poll", "explicit")
EVERY_MODEL = "*"
MOST_BESIDE = 8  # models that are loaded side by side; more of them would wait for the interpreter's lock
REQUESTED, CHANGED = "requested", "changed"  # why a backend is swapped, beside what has failed

Load = Callable[[LoadRequest], Loaded]


class RepositoryControl:
    """Loads into `manager` what `repositories` hold, by `load`.

    `failures` in a row of a backend make it a broken one, and `on_broken` gets the requests that it cannot compute.
    """

    def __init__(
        self,
        manager: ModelManager,
        repositories: Repositories,
        defaults: ServerDefaults,
        *,
        mode: str = "none",
        failures: int = 3,
        on_broken: OnBroken | None = None,
        clock: Clock = SYSTEM,
        load: Load = loader.load,
        measurements: Measurements | None = None,
    ) -> None:
        self._manager = manager
        self._repositories = repositories
        self._defaults = defaults
        self._mode = mode
        self._failures = failures
        self._on_broken = on_broken
        self._clock = clock
        self._loader = load
        measurements = measurements or Measurements(allow_tf32=defaults.allow_tf32)
        self._known, self._learnt = measurements.find, measurements.learnt
        self._trials = Trials(defaults.trial, clock=clock)
        self._touching = Touching()
        self._shadows = Shadows(manager, defaults, self._known, self._trials, clock)
        self._choosing = Choosing(manager, measurements, clock=clock)
        self._acted_on: changes.Seen = {}

    def start(self, names: Sequence[str] = ()) -> None:
        """The first load: everything, or in explicit mode the models named. Failures stay as the models' reasons.

        Several are loaded side by side where there are several processors.
        """
        try:
            self._load_first(names)
        finally:
            self._choosing.begin()

    def _load_first(self, names: Sequence[str]) -> None:
        try:
            there = self._repositories.models()
        except OSError as error:
            log.error("the model repository cannot be read: %s", error)
            return
        with contextlib.suppress(OSError):  # what could not be looked at now is loaded again when it can be
            self._acted_on = self._look()  # before anything is loaded: what changes meanwhile is a change
        asked = self._at_start(there, names)
        leaving = self._manager.closing.is_set
        self._clock.start(
            lambda: try_ahead(self._trials, self._repositories.holding, asked, self._defaults, self._known, leaving),
            "trials",
        )

        def load(name: str) -> None:
            with contextlib.suppress(ServingError):  # kept and logged as the model's reason
                self._load_from_repository(name, REQUESTED)

        self._clock.side_by_side(load, asked, min(cpus_here(), MOST_BESIDE), "loading beside")
        self._manager.started()

    def _at_start(self, there: Sequence[str], names: Sequence[str]) -> list[str]:
        """Which models to load, those that are not there among them: what is missing is a failure."""
        if self._mode != "explicit":
            return list(there)
        asked = [name for name in names if name != EVERY_MODEL]
        return list(dict.fromkeys([*there, *asked] if EVERY_MODEL in names else asked))

    def close(self, timeout_seconds: float = 1.0) -> None:
        """The server leaves: no backend is measured any more."""
        self._choosing.close(timeout_seconds)

    def load(self, name: str, configuration: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Loads a model as a client asks; returns when it can answer. Nothing happens if nothing has changed.

        `configuration` is a ModelConfig as JSON, in place of the file; `files` maps `VERSION/PATH` to contents. Raises
        `ControlDisabled`, `InvalidRequest`, `NotInRepository`, `NotReady` when the server leaves, or `LoadFailed`, and then
        what served before serves on.
        """
        self._check_allowed(name)
        if not files and self._manager.known(name) is None:
            try:
                self._repositories.holding(name)  # nothing is kept of a name that only a client knows
            except RepositoryError:
                pass  # it lies there twice; that is kept as its reason
            except OSError as error:
                raise NotInRepository(
                    f"failed to load '{name}', failed to poll from model repository: {error}"
                ) from error
        if configuration is None:
            with background.work():
                self._load_from_repository(name, REQUESTED)
            return
        with background.work(), self._manager.loading(name) as model:
            try:
                if files:
                    model.keep(override := sent_files.write(name, files))
                    repository = override.repository
                else:
                    repository = self._repositories.holding(name)
                self._load(model, repository, model_config.parse_json(configuration, name), REQUESTED)
            finally:
                model.tidy()

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
            if not self._manager.has_started and now.keys() <= acted_on.keys():  # it could not be read at the start
                self._manager.started()

    def index(self) -> list[VersionStatus]:
        """What the repository index shows: everything known, and by name alone what has never been loaded."""
        known = self._manager.entries()
        try:
            there = set(self._repositories.models())
        except OSError as error:
            log.error("the model repository cannot be read: %s", error)
            there = set()
        unknown = [
            VersionStatus(name=name, state="UNAVAILABLE", reason=TWICE)
            if self._repositories.appears_twice(name)
            else VersionStatus(name=name)
            for name in there - {entry.name for entry in known}
        ]
        return in_order([*known, *unknown])

    def _look(self) -> changes.Seen:
        return {name: self._repositories.fingerprint(name) for name in self._repositories.models()}

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

    def _load_from_repository(self, name: str, why: str) -> None:
        with self._manager.loading(name) as model:
            repository = self._holding(name)
            config = model_config.parse(repository.config_text(name), name)
            self._load(model, repository, config, why)
            model.tidy()

    def _holding(self, name: str) -> Repository:
        """Where a model lies. Clients are told of one that is missing in Triton's words; who starts the server, in more."""
        try:
            return self._repositories.holding(name)
        except NotInRepository as error:
            if self._manager.has_started:
                raise
            raise NotInRepository(f"{error}: {self._repositories.lacks(name)}") from error

    def _load(self, model: ModelEntry, repository: Repository, config: OperatorConfig, why: str) -> None:
        """Loads, as `_load_chosen` says, and then lets the sequences go on that a store holds for what serves."""
        try:
            self._load_chosen(model, repository, config, why)
        finally:
            if model.lanes:
                model.lanes.recover()

    def _load_chosen(self, model: ModelEntry, repository: Repository, config: OperatorConfig, why: str) -> None:
        """Loads what is new of the chosen versions, lets it in, and retires the others.

        All of it or nothing, so that what is in force is one configuration; only where nothing served before, whatever can
        be loaded serves.
        """
        folders = {folder.number: folder for folder in repository.versions(model.name)}
        chosen = config.versions(list(folders))
        serves = model.serves
        loaded, failures = self._load_new(model, repository, [folders[number] for number in chosen], config)
        failed = next(reversed(failures.values()), None)
        if failed and serves:
            for one, _ in loaded:
                one.model.close()
                self._manager.hold_back(model, one.model.version, list(failures))
            raise failed
        self._let_in(model, loaded, why)
        if failed:
            model.adopt(config.routes.unshadowed())
            if loaded and isinstance(failed, LoadFailed):
                let_in = ", ".join(one.model.version for one, _ in loaded)
                raise LoadFailed(f"{failed} (version {let_in} could be loaded, and serves)") from failed
            raise failed
        gone = sorted(set(model.versions()) - {str(number) for number in chosen})
        changed = bool(loaded or gone) or model.routes != config.routes  # a shadow may have followed what has gone
        model.adopt(config.routes)  # first, so that no label leads to a version that has left
        for version in gone:
            self._manager.remove(model, version, unloaded=False)
        if changed:
            self._shadows.start(model, repository, folders, config)

    def _load_new(
        self, model: ModelEntry, repository: Repository, folders: Sequence[VersionFolder], config: OperatorConfig
    ) -> tuple[list[tuple[Loaded, object]], dict[str, ServingError]]:
        """What does not serve as it is now, with what each is made from; and what failed, by version."""
        names = labels.read(repository, config)
        loaded: list[tuple[Loaded, object]] = []
        failures: dict[str, ServingError] = {}
        told = False
        for folder in folders:
            if self._manager.closing.is_set():
                for one, _ in loaded:
                    one.model.close()
                raise NotReady("Server exiting")
            version = str(folder.number)
            request = LoadRequest(
                name=model.name,
                folder=folder,
                config=config,
                labels=names,
                defaults=self._defaults,
                metrics=model.counts(version),
                repository=repository,
                on_broken=self._on_broken,
                known=self._known,
                learnt=self._learnt,
                trial=self._trials,
                found_touching=self._touching,
                failures=self._failures,
                before=self._manager.wrote(model, version),
                clock=self._clock,
            )
            identity = request.identity()
            if not self._manager.announce(model, version, identity):
                continue
            if config.idle and not told:
                told = True
                fields = {"model": model.name, "fields": config.idle}
                log.warning("accepted, and changes no answer here", extra={"fields": fields})
            try:
                folder.check()
                loaded.append((self._loader(request), identity))
            except Exception as error:  # noqa: BLE001 - told, logged and counted, whatever it is
                failures[version] = self._manager.refuse(model, version, error)
        return loaded, failures

    def _let_in(self, model: ModelEntry, loaded: Sequence[tuple[Loaded, object]], why: str) -> None:
        """Installs them, in order. Raises `NotReady`, all that is not in by then closed, if the server leaves."""
        for number, (one, identity) in enumerate(loaded):
            try:
                self._manager.install(model, one, why, identity)
            except NotReady:
                for left, _ in loaded[number + 1 :]:
                    left.model.close()
                raise
        self._choosing.look()

    def _unload(self, name: str) -> None:
        if self._manager.known(name) is None:
            return
        with self._manager.loading(name) as model:
            self._shadows.end(model)
            model.adopt(Routes())
            for version in model.versions():
                self._manager.remove(model, version, unloaded=True)
            model.tidy()
        log.info("unloaded", extra={"fields": {"model": name}})
