"""Loading on trial: a version that others made, and that is not known to load here, is first loaded in a child process.

A runtime that meets a file it cannot bear does not raise an error: it ends the process, and with it a server and all its models.
So the same loader loads it in a child first. What dies there is a sentence, and one level of optimisation lower is tried before
the file is given up. What our own writers made needs no trial, as long as the files are still those that they wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from serving import backends, errors
from serving.backends.base import Candidate, artifact_digest, files_digest
from serving.child.process import Child
from serving.clock import SYSTEM, Clock
from serving.errors import ChildEnded, ChildRaised, RepositoryError, StartupError
from serving.loading import trial
from serving.loading.order import AUTO, OFF
from serving.loading.remembered import Remembered, name_of
from serving.loading.request import LoadRequest, Tried
from serving.repository.folders import VersionFolder
from serving.signature.spec import OWN_FILES

log = logging.getLogger(__name__)

DOING = "while it was loaded on trial"
# Without a sign of life, and in all. A call into a runtime may take long; what it computes is what every load computes.
SILENCE_SECONDS, WALL_SECONDS = 300.0, 3600.0
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
        self._asking = threading.Lock()  # guards the three below
        self._child: Child | None = None
        self._asked = 0
        self._known: dict[str, Tried] = {}  # what cannot be kept on disk is known as long as the server lives

    def __call__(self, request: LoadRequest, candidate: Candidate) -> Tried:
        """How a version is to be loaded in a backend: at once where it needs no trial, else after one.

        Raises the `StartupError` that the loader raised in the child, or `RepositoryError` where the child did not survive.
        """
        if self._when == OFF or (self._when == AUTO and not _needed(request.folder, candidate)):
            return Tried()
        try:
            key = key_of(request, candidate)
        except OSError as error:
            raise RepositoryError(f"{request.folder.path} cannot be read: {error}") from error
        if key is None:
            return Tried()  # there is nothing that could be loaded; the loader says so
        model, name = request.folder.path.parent, name_of(key)
        with self._asking:
            if self._when == AUTO and (found := self._known.get(name) or self._remembered.find(model, key)):
                return self._told(request, candidate, found)
            if (tried := self._tried(request, candidate)) is None:
                return Tried()
            found = self._known[name] = tried
        self._remembered.keep(model, key, found)
        return self._told(request, candidate, found)

    def close(self) -> None:
        """Ends the child."""
        with self._asking:
            self._end()

    def _told(self, request: LoadRequest, candidate: Candidate, found: Tried) -> Tried:
        if found.level and found.level not in backends.module(candidate.backend).LEVELS:
            return Tried()
        if found.remark:
            log.warning("%s", found.remark, extra={"fields": request.fields()})
        return found

    def _tried(self, request: LoadRequest, candidate: Candidate) -> Tried | None:
        """What the trial finds, at the first level of optimisation that the process survives.

        None where an error was raised there that is none of ours: raised again by the load itself, it keeps its class.
        """
        levels = backends.module(candidate.backend).LEVELS or ("",)
        log.info("on trial", extra={"fields": request.fields() | {"backend": candidate.backend}})
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


def key_of(request: LoadRequest, candidate: Candidate) -> dict[str, Any] | None:
    """What a trial is remembered by, JSON-ready: digests of the files and the configuration, runtime and options.

    None where the version holds nothing for that backend. Raises `OSError`.
    """
    module = backends.module(candidate.backend)
    if not request.folder.artifact(candidate.backend).exists():
        return None
    return {
        "files": _digest(request.folder, candidate),
        "config": hashlib.sha256(request.config.written.SerializeToString(deterministic=True)).hexdigest(),
        "backend": candidate.backend,
        "version": module.version(),
        "device": candidate.device,
        "threads": candidate.threads,
        "allow_tf32": request.defaults.allow_tf32,
        "shadow": request.wrap is not None,
    }


def _digest(folder: VersionFolder, candidate: Candidate) -> str:
    """Of every file that may be read when it is loaded: all of the version's, but for the other backends' artefacts."""
    others = [folder.artifact(name) for name in backends.names() if name != candidate.backend]
    files = {
        path: str(path.relative_to(folder.path))
        for path in folder.path.rglob("*")
        if path.is_file() and not any(path.is_relative_to(other) for other in others)
    }
    return files_digest(files)


def _needed(folder: VersionFolder, candidate: Candidate) -> bool:
    """Whether a version could end the process for all that is known: its runtime may, and the files are not ours."""
    return bool(backends.module(candidate.backend).LEVELS) and not ours(folder, candidate.backend)


def ours(folder: VersionFolder, backend: str) -> bool:
    """Whether a backend's artefact is, byte for byte, what one of our own writers has made."""
    artifact = folder.artifact(backend)
    with contextlib.suppress(StartupError, OSError, KeyError, TypeError):  # no spec.json, or none that says so
        digests = folder.spec().source["export"][OWN_FILES]
        return bool(digests[artifact.name] == artifact_digest(artifact))
    return False


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
