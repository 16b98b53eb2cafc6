"""Where a version is served, and where it would be served next: the server's wishes, the operator's, and what is there.

What takes over at run time need not be allowed to take over at load. A server that was told to use a GPU and has none
refuses to start on the CPU unless that was configured, but a GPU that is lost under load has its requests answered by
whatever else the version holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from serving import backends
from serving.backends.base import Candidate, Measured, Options
from serving.errors import BackendUnavailable, MissingFormat, RepositoryError
from serving.loading import measuring, ranking
from serving.loading.measurements import Known
from serving.loading.ranking import Aim
from serving.machine.devices import CPU, cuda
from serving.repository import strangers
from serving.repository.folders import VersionFolder
from serving.repository.operator_config import OperatorConfig

AUTO = "auto"
FALLBACKS = ("none", "runtime", "always")
ALWAYS, OFF = "always", "off"
TRIALS = (AUTO, ALWAYS, OFF)
# How it came that a version is served as it is.
ASKED, ONLY, RULE, MEASURED, INSTEAD = "as asked", "only way", "by rule", "measured", "instead"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerDefaults:
    """The server-wide wishes: a backend's name or "auto"; "cpu", "cuda:N" or "auto"; a number of threads, None for auto.

    What a model's `config.pbtxt` says goes before these. With `require_verified` nothing is served without golden samples.
    `row_watch` is the share of the batches of files of others of which a row is computed again alone. `fallback` says when
    another backend may take over: never, at run time, or at load too. `trial` is one of `TRIALS`: which versions are
    loaded in a child process first. `stateful` names models that keep state whatever their configuration says.
    """

    backend: str = AUTO
    device: str = CPU
    threads: int | None = None
    allow_tf32: bool = False
    require_verified: bool = False
    optimize_for: Aim = "latency"
    fallback: str = "runtime"
    trial: str = AUTO
    row_watch: float = 0.01
    stateful: Sequence[str] = ()

    def options(self, threads: int, level: str = "") -> Options:
        """What a backend is loaded with."""
        return Options(threads=threads, allow_tf32=self.allow_tf32, level=level)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """Who serves a version: the first of `first` that can, and after it, if its turn comes, the rest and then `spare`.

    With `spare_at_load` the spare ones are taken already where none of the first can load; with `settles` only they take over
    later, too. `auto` chooses among the `possible`, of which there are none where nothing is to choose; `measured` is what is
    known of them, best first, and `how` is one of `ASKED`, `ONLY`, `RULE` and `MEASURED`. `missing` says why nothing that was
    asked for can run here, so that the first are already such as take over.
    """

    first: tuple[Candidate, ...]
    spare: tuple[Candidate, ...] = ()
    spare_at_load: bool = False
    settles: bool = False
    possible: tuple[Candidate, ...] = ()
    measured: tuple[Measured, ...] = ()
    how: str = ASKED
    missing: str = ""

    @property
    def unmeasured(self) -> tuple[Candidate, ...]:
        """Those among which a choice is to be made, and of which nothing is known yet."""
        known = {one.candidate for one in self.measured}
        return tuple(candidate for candidate in self.possible if candidate not in known)

    @property
    def all(self) -> tuple[Candidate, ...]:
        """Everyone, best first, each backend and device once."""
        return _once((*self.first, *self.spare))

    @property
    def at_load(self) -> tuple[Candidate, ...]:
        """Who is tried when the version is loaded."""
        return self.all if self.spare_at_load else self.first

    def preferring(self, backend: str) -> Order:
        """The same, but of those that were asked for this backend is tried before the others."""
        if all(candidate.backend == self.first[0].backend for candidate in self.first):
            return self
        first = sorted(self.first, key=lambda candidate: candidate.backend != backend)
        return dataclasses.replace(self, first=tuple(first))

    def serving(self, candidate: Candidate) -> Order:
        """Who may take over once `candidate` serves."""
        settled = self.settles and candidate in self.first
        return dataclasses.replace(self, first=(candidate,)) if settled else self


def order(
    config: OperatorConfig,
    defaults: ServerDefaults,
    folder: VersionFolder,
    known: Known | None = None,
    serving: Candidate | None = None,
) -> Order:
    """Who serves a version. `auto` takes what is known to be best, and measures nothing.

    Where nothing is known it goes by rule: ONNX Runtime, then the smallest start. `serving` is who serves the version now.
    Raises `RepositoryError` when the version lacks what was asked for, `BackendUnavailable` with every reason when nothing that
    is there can run here; unless something else may take over at load.
    """
    try:
        return _asked_for(config, defaults, folder, known, serving)
    except (BackendUnavailable, MissingFormat) as error:
        instead = _instead(config, defaults, folder) if may_fall_back(config, defaults) else ()
        if not instead:
            raise
        return Order(first=instead, how=INSTEAD, missing=str(error))


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
    _first_possible([Candidate(name, CPU if defaults.device == AUTO else defaults.device, 1) for name in names])


def _asked_for(
    config: OperatorConfig,
    defaults: ServerDefaults,
    folder: VersionFolder,
    known: Known | None,
    serving: Candidate | None,
) -> Order:
    formats = folder.formats()
    backend = config.backend or defaults.backend
    devices, threads = _asked(config, defaults)
    if not formats:
        raise RepositoryError(strangers.told(folder.path, config.written.default_model_filename))
    _check_there(backend, formats)
    chosen = Order(first=())
    if backend != AUTO:
        chosen = Order(first=tuple(_possible([Candidate(backend, each, threads or 1) for each in devices])))
    elif not folder.described:  # nothing says that bare files compute the same
        named = [Candidate(name, each, threads or 1) for name in formats for each in devices]
        chosen = Order(first=(_first_possible(named),), how=RULE)
    else:
        every = ranking.candidates(formats, devices, threads, measuring.cpus_here())
        # A GPU's runtimes say only once they are imported whether they can use it; who cannot is found out later.
        possible = [each for each in every if not measuring.unavailable(each)] or _possible(every)
        chosen = _chosen(possible, known(folder, possible) if known else {}, defaults.optimize_for, serving)
    return dataclasses.replace(
        chosen,
        spare=_spare(config, defaults, folder, chosen.first, threads or 1),
        spare_at_load=may_fall_back(config, defaults),
        settles=config.fallback is not None or defaults.fallback == "none",
    )


def _chosen(
    possible: Sequence[Candidate], known: Mapping[Candidate, Measured], aim: Aim, serving: Candidate | None
) -> Order:
    """What `auto` makes of what is known."""
    if len(possible) == 1:
        return Order(first=tuple(possible), how=ONLY)
    measured = ranking.ranked([known[each] for each in possible if each in known], aim)
    best = ranking.chosen(measured, serving or possible[0], aim, backends.brought_in)
    others = [one.candidate for one in measured if not one.failed]
    failed = [one.candidate for one in measured if one.failed and not one.by_chance]
    left = [each for each in possible if each not in failed]
    # Where none could be measured, loading them in turn says why, or shows that the machine was merely busy.
    first = _once((best, *others, *left)) if left else _once(possible)
    by_chance = {one.candidate for one in measured if one.by_chance}
    how = MEASURED if len(measured) == len(possible) and best not in by_chance else RULE
    return Order(first=first, possible=tuple(possible), measured=tuple(measured), how=how)


def _instead(config: OperatorConfig, defaults: ServerDefaults, folder: VersionFolder) -> tuple[Candidate, ...]:
    """What takes over at load where nothing that was asked for can run here; empty if nothing can."""
    threads = _asked(config, defaults)[1] or 1
    if config.fallback is not None:
        return _once(Candidate(name, device or CPU, threads) for name, device in config.fallback)
    if not folder.described:
        return ()
    return _once(Candidate(name, CPU, threads) for name in folder.formats())


def ways(config: OperatorConfig, defaults: ServerDefaults, folder: VersionFolder) -> list[Candidate]:
    """Everything that the version could be served with, whatever backend was asked for."""
    devices, threads = _asked(config, defaults)
    return ranking.candidates(folder.formats(), devices, threads, measuring.cpus_here())


def measured(every: Sequence[Candidate], defaults: ServerDefaults, folder: VersionFolder) -> tuple[Measured, ...]:
    """How fast each of these is, best first."""
    figures = measuring.measure(folder, every, allow_tf32=defaults.allow_tf32)
    return tuple(ranking.ranked(figures, defaults.optimize_for))


def _asked(config: OperatorConfig, defaults: ServerDefaults) -> tuple[tuple[str, ...], int | None]:
    """The devices to look at, in this order, and the number of threads; None leaves it open."""
    device = config.device or defaults.device
    return (cuda(0), CPU) if device == AUTO else (device,), config.threads or defaults.threads


def _check_there(backend: str, formats: Sequence[str]) -> None:
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


def _first_possible(candidates: Sequence[Candidate]) -> Candidate:
    """The first that can run here; those after it are not asked, as a runtime is imported to say whether it can use a GPU.

    Raises `BackendUnavailable` with every reason if none can.
    """
    for candidate in candidates:
        with contextlib.suppress(BackendUnavailable):
            backends.module(candidate.backend).available(candidate.device)
            return candidate
    return _possible(candidates)[0]


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
