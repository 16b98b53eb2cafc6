"""Loading on trial: a version that others made, and that is not known to load here, is first loaded in a child process.

A runtime that meets a file it cannot bear does not raise an error: it ends the process, and with it a server and all its models.
So the same loader loads it in a child first. What dies there is a sentence, and one level of optimisation lower is tried before
the file is given up. What our own writers made needs no trial, as long as the files are still those that they wrote.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from serving import backends, errors
from serving.backends.base import BackendModule, Candidate
from serving.child.process import Child
from serving.clock import SYSTEM, Clock
from serving.errors import ChildEnded, ChildRaised, RepositoryError, ServingError, StartupError
from serving.loading import trial
from serving.loading.kept import name_of
from serving.loading.keys import key_of, needed
from serving.loading.measurements import Known
from serving.loading.order import AUTO, OFF, ServerDefaults, order
from serving.loading.remembered import Remembered
from serving.loading.request import LoadRequest, Tried
from serving.repository import labels, model_config
from serving.repository.folders import Repository, VersionFolder
from serving.repository.operator_config import OperatorConfig
from serving.telemetry.counters import ModelMetrics

log = logging.getLogger(__name__)

DOING = "while it was loaded on trial"
# Without a sign of life, and in all. A call into a runtime may take long; what it computes is what every load computes.
SILENCE_SECONDS, WALL_SECONDS = 120.0, 3600.0
MOST_KNOWN = 1000
IDLE_SECONDS = 10.0  # before the child is ended, with the runtimes that it has imported


class Trials:
    """Holds trials, one after the other, in one child that is started for the first and anew after each crash.

    `when` is "auto" (what is not ours and not remembered), "always" or "off". Used from any loader thread.
    """

    def __init__(
        self,
        when: str = AUTO,
        *,
        remembered: Remembered | None = None,
        child: Callable[[], Child] = lambda: Child(trial.PROGRAM),
        clock: Clock = SYSTEM,
    ) -> None:
        self._when = when
        self._remembered = remembered or Remembered()
        self._make = child
        self._clock = clock
        self._asking = threading.Lock()  # held during a trial; guards the two below
        self._child: Child | None = None
        self._asked = 0
        self._lock = threading.Lock()  # guards the three below
        self._known: dict[str, Tried] = {}  # what cannot be kept on disk is known as long as the server lives
        self._refused: dict[str, StartupError] = {}  # ahead of a load, which has still to be told
        self._told: set[str] = set()  # what loads have been refused, and need not be tried ahead of them any more

    def __call__(self, request: LoadRequest, candidate: Candidate) -> Tried:
        """How a version is to be loaded in a backend: at once where it needs no trial, else after one.

        Raises the `StartupError` that the loader raised in the child, or `RepositoryError` where the child did not survive.
        """
        found = self._held(request, candidate)
        if found.remark:
            log.warning("%s", found.remark, extra={"fields": request.fields()})
        return found

    def ahead(self, request: LoadRequest, candidate: Candidate) -> None:
        """Holds a trial before the load asks for it, while others are loaded. What it finds, an error too, the load is told."""
        if self._when == AUTO:
            with contextlib.suppress(StartupError):  # kept for the load
                self._held(request, candidate, ahead=True)

    def close(self) -> None:
        """Ends the child."""
        with self._asking:
            self._end()

    def _held(self, request: LoadRequest, candidate: Candidate, *, ahead: bool = False) -> Tried:
        if self._when == OFF or (self._when == AUTO and not needed(request.folder, candidate)):
            return Tried()
        try:
            key = key_of(request, candidate)
        except OSError as error:
            raise RepositoryError(f"{request.folder.path} cannot be read: {error}") from error
        if key is None:
            return Tried()  # there is nothing that could be loaded; the loader says so
        model, name = request.folder.path.parent, name_of(key)
        if (found := self._found(model, key, name)) is not None:
            return found
        with self._asking:
            if ahead and name in self._told:  # its load was faster, while the child was waited for
                return Tried()
            try:
                found = self._found(model, key, name) or self._tried(request, candidate)
            except StartupError as error:
                with self._lock:
                    if ahead:
                        self._refused[name] = error
                    else:
                        self._told.add(name)
                raise
            if found is None:
                return Tried()
            with self._lock:
                self._known[name] = found
                if len(self._known) > MOST_KNOWN:
                    del self._known[next(iter(self._known))]
        self._remembered.keep(model, key, found)
        return found

    def _found(self, model: Path, key: Mapping[str, Any], name: str) -> Tried | None:
        """What is known already. Raises the error that a trial ahead of the load has met, once."""
        if self._when != AUTO:
            return None
        with self._lock:
            if refused := self._refused.pop(name, None):
                raise refused
            if name in self._known:
                return self._known[name]
        found = self._remembered.find(model, key)
        levels = backends.module(key["backend"]).LEVELS
        return found if found is None or not found.level or found.level in levels else None

    def _tried(self, request: LoadRequest, candidate: Candidate) -> Tried | None:
        """What the trial finds, at the first level of optimisation that the process survives.

        None where an error was raised there that is none of ours: raised again by the load itself, it keeps its class.
        """
        module = backends.module(candidate.backend)
        levels = module.LEVELS or ("",)
        log.info("on trial", extra={"fields": request.fields() | {"backend": candidate.backend}})
        self._clock.start(lambda: _bring_in(module), f"import for the trial in {candidate.backend}")
        ends: list[ChildEnded] = []
        for level in levels:
            try:
                self._ask(trial.described(request, candidate, level))
            except ChildEnded as error:
                ends.append(error)
                if not error.crashed:
                    break
            except ChildRaised as error:
                log.info("on trial: %s", error, extra={"fields": request.fields()})
                return None
            else:
                remark = f"loaded at the level '{level}' of optimisation: at '{levels[0]}' {ends[0]}" if ends else ""
                return Tried(level if ends else "", remark)
        raise RepositoryError(_given_up(request.folder, candidate, ends))

    def _ask(self, header: Mapping[str, Any]) -> None:
        if self._child is None or not self._child.alive:
            self._end()
            self._child = self._make()
        try:
            answer = self._child.ask(
                header, doing=DOING, silence_seconds=SILENCE_SECONDS, wall_seconds=WALL_SECONDS
            ).header
        finally:
            self._asked += 1
            self._clock.start(self._rest(self._asked), "end of the trial")
        if kind := answer.get("refused"):
            raise getattr(errors, kind)(answer["said"])

    def _rest(self, asked: int) -> Callable[[], None]:
        """Ends the child if nobody has asked it again meanwhile."""

        def rest() -> None:
            self._clock.event().wait(IDLE_SECONDS)
            with self._asking:
                if self._asked == asked:
                    self._end()

        return rest

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None


def _bring_in(module: BackendModule) -> None:
    """Imports here, meanwhile, what the load will want next."""
    try:
        module.bring_in()
    except Exception as error:  # noqa: BLE001 - whatever an import raises, the load meets it again and says so
        log.info("not imported ahead of its load: %s", error)


def try_ahead(
    trials: Trials,
    holding: Callable[[str], Repository],
    names: Iterable[str],
    defaults: ServerDefaults,
    known: Known,
    leaving: Callable[[], bool],
) -> None:
    """Loads on trial what is about to be loaded and needs it, beside the loads, until the server is `leaving`.

    `holding` gives the repository that has a model, `known` what was measured before.

    What is wrong with a model its own load says.
    """
    for name in names:
        with contextlib.suppress(ServingError, OSError):
            repository = holding(name)
            config = model_config.parse(repository.config_text(name), name)
            folders = {folder.number: folder for folder in repository.versions(name)}
            for number in config.versions(list(folders)):
                if leaving():
                    return
                candidate = order(config, defaults, folders[number], known).at_load[0]
                trials.ahead(request_for(repository, name, config, folders[number], defaults), candidate)


def request_for(
    repository: Repository, name: str, config: OperatorConfig, folder: VersionFolder, defaults: ServerDefaults
) -> LoadRequest:
    """A version to be loaded on trial, whatever else is or is not loaded. Raises `ModelConfigError` as `as_stateful` does."""
    return LoadRequest(
        name=name,
        folder=folder,
        config=model_config.as_stateful(config, defaults.stateful),
        labels=labels.read(repository, config),
        defaults=defaults,
        metrics=lambda backend: ModelMetrics(),
        repository=repository,
    )


def _given_up(folder: VersionFolder, candidate: Candidate, ends: list[ChildEnded]) -> str:
    module = backends.module(candidate.backend)
    file = f"{folder.path}/{module.FILE_NAME}"
    runtime = f"{candidate.backend} {module.version()}".strip()
    if not ends[-1].crashed:
        return (
            f"{file} could not be loaded on trial in {runtime}: {ends[-1]}. Give it more memory or time, or, if you know the "
            "file, start with --trial off"
        )
    levels = f", and so at every level of optimisation ({', '.join(module.LEVELS)})" if len(ends) > 1 else ""
    return (
        f"{file} kills {runtime}: {ends[0]}{levels}. Export it again, in float32 or with another opset, or take another version "
        "of the runtime; everything else serves on"
    )


def told(trials: Trials, request: LoadRequest, candidate: Candidate) -> str:
    """For people: that a version is refused by its trial, or at which level it is loaded; empty if there is nothing to say."""
    try:
        return trials(request, candidate).remark
    except StartupError as error:
        return f"refused by its trial: {error}"
    finally:
        trials.close()
