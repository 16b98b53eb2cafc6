"""Where a version is served, and where it would be served next: the server's wishes, the operator's, and what is there.

What takes over at run time need not be allowed to take over at load. A server that was told to use a GPU and has none
refuses to start on the CPU unless that was configured, but a GPU that is lost under load has its requests answered by
whatever else the version holds.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from serving import backends
from serving.backends.base import Options
from serving.errors import BackendUnavailable, MissingFormat, RepositoryError
from serving.loading import measuring, ranking
from serving.loading.ranking import Candidate, Measured
from serving.machine.devices import CPU
from serving.repository.folders import VersionFolder
from serving.repository.model_config import OperatorConfig

AUTO = "auto"
FALLBACKS = ("none", "runtime", "always")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerDefaults:
    """The server-wide wishes: a backend's name or "auto"; "cpu", "cuda:N" or "auto"; a number of threads, None for auto.

    What a model's `config.pbtxt` says goes before these. With `require_verified` nothing is served without golden samples.
    `fallback` says when another backend may take over: never, at run time, or at load too.
    """

    backend: str = AUTO
    device: str = CPU
    threads: int | None = None
    allow_tf32: bool = False
    require_verified: bool = False
    optimize_for: Literal["latency", "throughput"] = "latency"
    fallback: str = "runtime"

    def options(self, threads: int) -> Options:
        """What a backend is loaded with."""
        return Options(threads=threads, allow_tf32=self.allow_tf32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """Who serves a version: the first of `first` that can, and after it, if its turn comes, the rest and then `spare`.

    With `spare_at_load` the spare ones are taken already where none of the first can load. `measured` is empty where nothing
    was to choose.
    """

    first: tuple[Candidate, ...]
    spare: tuple[Candidate, ...] = ()
    spare_at_load: bool = False
    measured: tuple[Measured, ...] = ()

    @property
    def all(self) -> tuple[Candidate, ...]:
        """Everyone, best first, each backend and device once."""
        return _once((*self.first, *self.spare))

    def settled(self, candidate: Candidate) -> Order:
        """What is left when one of the first has been chosen, and only the spare ones may take over from it."""
        return dataclasses.replace(self, first=(candidate,)) if candidate in self.first else self


Measure = Callable[[VersionFolder, Sequence[Candidate]], Sequence[Measured]]


class Measurements:
    """Measures, and remembers: networks of one signature whose files have the same sizes take the same time.

    So a version that brings new weights, or is loaded again, is not measured again. Called from any loader thread.
    """

    def __init__(self, *, allow_tf32: bool) -> None:
        self._allow_tf32 = allow_tf32
        self._lock = threading.Lock()
        self._known: dict[object, Sequence[Measured]] = {}

    def __call__(self, folder: VersionFolder, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        spec = folder.spec()
        sizes = tuple((name, _bytes(folder.artifact(name))) for name in folder.formats())
        key = (tuple(candidates), spec.inputs, spec.outputs, sizes)
        with self._lock:  # measured one after the other, or they would be in each other's way
            if key not in self._known:
                found = measuring.measure(folder, candidates, allow_tf32=self._allow_tf32)
                if any(one.failed for one in found):
                    return found
                self._known[key] = found
            return self._known[key]


def order(
    choices: OperatorConfig, placement: ServerDefaults, folder: VersionFolder, measure: Measure | None = None
) -> Order:
    """Who serves a version; with `auto` that is measured where there is more than one way, which takes seconds.

    Raises `RepositoryError` when the version lacks what was asked for, `BackendUnavailable` with every reason when
    nothing that is there can run here.
    """
    formats = folder.formats()
    backend = choices.backend or placement.backend
    devices, threads = _asked(choices, placement)
    _check_there(backend, formats)
    names = formats if backend == AUTO else (backend,)
    measured: tuple[Measured, ...] = ()
    if backend == AUTO and folder.described:
        possible = _possible(ranking.candidates(names, devices, threads, measuring.cpus_here()))
        if len(possible) > 1:
            figures = (measure or Measurements(allow_tf32=placement.allow_tf32))(folder, possible)
            measured = tuple(ranking.ranked(figures, placement.optimize_for))
            # Where none could be measured, loading them in turn says why, or shows that the machine was merely busy.
            first = tuple(one.candidate for one in measured if not one.failed) or tuple(possible)
        else:
            first = tuple(possible)
    else:
        first = tuple(_possible([Candidate(name, each, threads or 1) for name in names for each in devices]))
        first = first[:1] if not folder.described else first  # nothing says that bare files compute the same
    return Order(
        first=first,
        spare=_spare(choices, placement, folder, first, threads or 1),
        spare_at_load=placement.fallback == "always" or choices.fallback is not None,
        measured=measured,
    )


def spares(choices: OperatorConfig, placement: ServerDefaults, folder: VersionFolder) -> tuple[Candidate, ...]:
    """What may take over at load where nothing that was asked for can run here; empty if nothing may."""
    threads = _asked(choices, placement)[1] or 1
    if choices.fallback is not None:
        return _once(Candidate(name, device or CPU, threads) for name, device in choices.fallback)
    if placement.fallback != "always" or not folder.described:
        return ()
    return _once(Candidate(name, CPU, threads) for name in folder.formats())


def measured(choices: OperatorConfig, placement: ServerDefaults, folder: VersionFolder) -> tuple[Measured, ...]:
    """Everything that the version could be served with, whatever backend was asked for, best first."""
    devices, threads = _asked(choices, placement)
    every = ranking.candidates(folder.formats(), devices, threads, measuring.cpus_here())
    figures = measuring.measure(folder, every, allow_tf32=placement.allow_tf32)
    return tuple(ranking.ranked(figures, placement.optimize_for))


def first_available(places: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The first pair of a backend and a device that can run here. Raises `BackendUnavailable` with every reason if none can."""
    found = _possible([Candidate(backend, device, 1) for backend, device in places])
    return found[0].backend, found[0].device


def _asked(choices: OperatorConfig, placement: ServerDefaults) -> tuple[tuple[str, ...], int | None]:
    """The devices to look at, in this order, and the number of threads; None leaves it open."""
    device = choices.device or placement.device
    return ("cuda:0", CPU) if device == AUTO else (device,), choices.threads or placement.threads


def _check_there(backend: str, formats: Sequence[str]) -> None:
    if not formats:
        known = ", ".join(backends.module(name).FILE_NAME for name in backends.PREFERENCE)
        raise RepositoryError(f"the version holds no model file; one of {known} is needed: export it again")
    if backend != AUTO and backend not in formats:
        raise MissingFormat(
            f"backend {backend} was asked for, but the version has no {backends.module(backend).FILE_NAME}; "
            f"it can be served by {', '.join(formats)}"
        )


def _possible(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that can run here. Raises `BackendUnavailable` with every reason if none can."""
    reasons: dict[str, list[str]] = {}
    found = []
    for candidate in candidates:
        try:
            backends.module(candidate.backend).available(candidate.device)
        except BackendUnavailable as error:
            who = reasons.setdefault(str(error), [])
            if (place := f"{candidate.backend} on {candidate.device}") not in who:
                who.append(place)
        else:
            found.append(candidate)
    if not found:
        told = "; ".join(f"{', '.join(who)}: {why}" for why, who in reasons.items())
        raise BackendUnavailable(f"no backend that was asked for can run here. {told}")
    return found


def _spare(
    choices: OperatorConfig, placement: ServerDefaults, folder: VersionFolder, first: Sequence[Candidate], threads: int
) -> tuple[Candidate, ...]:
    """What takes over: what the operator lists, or every other format on the same device and then on the CPU."""
    formats = folder.formats()
    if choices.fallback is not None:
        for name, _ in choices.fallback:
            _check_there(name, formats)
        return _once(Candidate(name, device or first[0].device, threads) for name, device in choices.fallback)
    if placement.fallback == "none" or not folder.described:
        return ()
    places = dict.fromkeys((first[0].device, CPU))
    return _once(Candidate(name, device, threads) for device in places for name in formats)


def _once(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Each backend and device once, the number of threads being that of the first."""
    seen: dict[tuple[str, str], Candidate] = {}
    for candidate in candidates:
        seen.setdefault((candidate.backend, candidate.device), candidate)
    return tuple(seen.values())


def _bytes(artifact: Path) -> int:
    files = artifact.rglob("*") if artifact.is_dir() else [artifact]
    return sum(file.stat().st_size for file in files if file.is_file())
