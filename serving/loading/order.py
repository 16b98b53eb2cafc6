"""Where a version is served, and where it would be served next: the server's wishes, the operator's, and what is there.

What takes over at run time need not be allowed to take over at load. A server that was told to use a GPU and has none
refuses to start on the CPU unless that was configured, but a GPU that is lost under load has its requests answered by
whatever else the version holds.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from serving import backends
from serving.backends.base import Candidate, Measured, Options, artifact_bytes
from serving.errors import BackendUnavailable, MissingFormat, RepositoryError
from serving.loading import measuring, ranking
from serving.machine.devices import CPU, cuda
from serving.repository.folders import VersionFolder
from serving.repository.operator_config import OperatorConfig

AUTO = "auto"
FALLBACKS = ("none", "runtime", "always")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerDefaults:
    """The server-wide wishes: a backend's name or "auto"; "cpu", "cuda:N" or "auto"; a number of threads, None for auto.

    What a model's `config.pbtxt` says goes before these. With `require_verified` nothing is served without golden samples.
    `row_watch` is the share of the batches of files of others of which a row is computed again alone. `fallback` says when
    another backend may take over: never, at run time, or at load too.
    """

    backend: str = AUTO
    device: str = CPU
    threads: int | None = None
    allow_tf32: bool = False
    require_verified: bool = False
    optimize_for: Literal["latency", "throughput"] = "latency"
    fallback: str = "runtime"
    row_watch: float = 0.01

    def options(self, threads: int) -> Options:
        """What a backend is loaded with."""
        return Options(threads=threads, allow_tf32=self.allow_tf32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """Who serves a version: the first of `first` that can, and after it, if its turn comes, the rest and then `spare`.

    With `spare_at_load` the spare ones are taken already where none of the first can load; with `settles` only they take over
    later, too. `measured` is empty where nothing was to choose. `missing` says why nothing that was asked for can run here, so
    that the first are already such as take over.
    """

    first: tuple[Candidate, ...]
    spare: tuple[Candidate, ...] = ()
    spare_at_load: bool = False
    settles: bool = False
    measured: tuple[Measured, ...] = ()
    missing: str = ""

    @property
    def all(self) -> tuple[Candidate, ...]:
        """Everyone, best first, each backend and device once."""
        return _once((*self.first, *self.spare))

    @property
    def at_load(self) -> tuple[Candidate, ...]:
        """Who is tried when the version is loaded."""
        return self.all if self.spare_at_load else self.first

    def serving(self, candidate: Candidate) -> Order:
        """Who may take over once `candidate` serves."""
        settled = self.settles and candidate in self.first
        return dataclasses.replace(self, first=(candidate,)) if settled else self


Measure = Callable[[VersionFolder, Sequence[Candidate]], Sequence[Measured]]


class Measurements:
    """Measures, and remembers: networks of one signature whose files have the same sizes take the same time.

    So a version that brings new weights, or is loaded again, is not measured again. Called from any loader thread.
    """

    def __init__(self, *, allow_tf32: bool, measure: Callable[..., Sequence[Measured]] = measuring.measure) -> None:
        self._allow_tf32 = allow_tf32
        self._measure = measure
        self._lock = threading.Lock()
        self._known: dict[object, Sequence[Measured]] = {}

    def __call__(self, folder: VersionFolder, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        spec = folder.spec()
        sizes = tuple((name, artifact_bytes(folder.artifact(name))) for name in folder.formats())
        key = (tuple(candidates), spec.inputs, spec.outputs, sizes)
        with self._lock:  # measured one after the other, or they would be in each other's way
            if key not in self._known:
                found = self._measure(folder, candidates, allow_tf32=self._allow_tf32)
                if any(one.failed for one in found):
                    return found
                self._known[key] = found
            return self._known[key]


def order(
    config: OperatorConfig, defaults: ServerDefaults, folder: VersionFolder, measure: Measure | None = None
) -> Order:
    """Who serves a version; with `auto` that is measured where there is more than one way, which takes seconds.

    Raises `RepositoryError` when the version lacks what was asked for, `BackendUnavailable` with every reason when
    nothing that is there can run here; unless something else may take over at load.
    """
    try:
        return _asked_for(config, defaults, folder, measure)
    except (BackendUnavailable, MissingFormat) as error:
        instead = _instead(config, defaults, folder) if may_fall_back(config, defaults) else ()
        if not instead:
            raise
        return Order(first=instead, missing=str(error))


def may_fall_back(config: OperatorConfig, defaults: ServerDefaults) -> bool:
    """Whether something else than what was asked for may serve as soon as the model is loaded."""
    return defaults.fallback == "always" or config.fallback is not None


def check_defaults(defaults: ServerDefaults, configs: Iterable[OperatorConfig]) -> None:
    """Raises `BackendUnavailable` with every reason when no backend that may be used can run on the device asked for.

    Where any of the models may fall back at load, that is left to its load.
    """
    if defaults.fallback == "always" or any(may_fall_back(config, defaults) for config in configs):
        return
    names = backends.PREFERENCE if defaults.backend == AUTO else (defaults.backend,)
    _possible([Candidate(name, CPU if defaults.device == AUTO else defaults.device, 1) for name in names])


def _asked_for(
    config: OperatorConfig, defaults: ServerDefaults, folder: VersionFolder, measure: Measure | None
) -> Order:
    formats = folder.formats()
    backend = config.backend or defaults.backend
    devices, threads = _asked(config, defaults)
    _check_there(backend, formats)
    names = formats if backend == AUTO else (backend,)
    measured: tuple[Measured, ...] = ()
    if backend == AUTO and folder.described:
        possible = _possible(ranking.candidates(names, devices, threads, measuring.cpus_here()))
        if len(possible) > 1:
            figures = (measure or Measurements(allow_tf32=defaults.allow_tf32))(folder, possible)
            measured = tuple(ranking.ranked(figures, defaults.optimize_for))
            # Where none could be measured, loading them in turn says why, or shows that the machine was merely busy.
            first = tuple(one.candidate for one in measured if not one.failed) or tuple(possible)
        else:
            first = tuple(possible)
    else:
        first = tuple(_possible([Candidate(name, each, threads or 1) for name in names for each in devices]))
        first = first[:1] if not folder.described else first  # nothing says that bare files compute the same
    return Order(
        first=first,
        spare=_spare(config, defaults, folder, first, threads or 1),
        spare_at_load=may_fall_back(config, defaults),
        settles=config.fallback is not None or defaults.fallback == "none",
        measured=measured,
    )


def _instead(config: OperatorConfig, defaults: ServerDefaults, folder: VersionFolder) -> tuple[Candidate, ...]:
    """What takes over at load where nothing that was asked for can run here; empty if nothing can."""
    threads = _asked(config, defaults)[1] or 1
    if config.fallback is not None:
        return _once(Candidate(name, device or CPU, threads) for name, device in config.fallback)
    if not folder.described:
        return ()
    return _once(Candidate(name, CPU, threads) for name in folder.formats())


def measured(config: OperatorConfig, defaults: ServerDefaults, folder: VersionFolder) -> tuple[Measured, ...]:
    """Everything that the version could be served with, whatever backend was asked for, best first."""
    devices, threads = _asked(config, defaults)
    every = ranking.candidates(folder.formats(), devices, threads, measuring.cpus_here())
    figures = measuring.measure(folder, every, allow_tf32=defaults.allow_tf32)
    return tuple(ranking.ranked(figures, defaults.optimize_for))


def _asked(config: OperatorConfig, defaults: ServerDefaults) -> tuple[tuple[str, ...], int | None]:
    """The devices to look at, in this order, and the number of threads; None leaves it open."""
    device = config.device or defaults.device
    return (cuda(0), CPU) if device == AUTO else (device,), config.threads or defaults.threads


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
    config: OperatorConfig, defaults: ServerDefaults, folder: VersionFolder, first: Sequence[Candidate], threads: int
) -> tuple[Candidate, ...]:
    """What takes over: what the operator lists, or every other format on the same device and then on the CPU."""
    formats = folder.formats()
    if config.fallback is not None:
        for name, _ in config.fallback:
            _check_there(name, formats)
        return _once(Candidate(name, device or first[0].device, threads) for name, device in config.fallback)
    if defaults.fallback == "none" or not folder.described:
        return ()
    places = dict.fromkeys((first[0].device, CPU))
    return _once(Candidate(name, device, threads) for device in places for name in formats)


def _once(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Each backend and device once, the number of threads being that of the first."""
    seen: dict[tuple[str, str], Candidate] = {}
    for candidate in candidates:
        seen.setdefault((candidate.backend, candidate.device), candidate)
    return tuple(seen.values())
