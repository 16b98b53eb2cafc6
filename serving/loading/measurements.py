"""What is known of how fast a version is in each backend: from now, from earlier starts, and from versions that are alike.

Figures of the very files are kept on disk (`MODEL/.measured/`, else a folder that only this user may write), so that a server
which starts again knows at once what to take. In memory they hold for another version of the same signature whose files have
the same sizes, too, as the time of an LSTM does not depend on its weights. What failed is known as long as the server lives.
"""

from __future__ import annotations

import functools
import logging
import math
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from serving import backends
from serving.backends.base import Candidate, Measured, artifact_files
from serving.errors import StartupError
from serving.loading.digests import folder_digest
from serving.loading.kept import Kept, Key, name_of, opened, user_folder
from serving.loading.learnt import Learnt
from serving.loading.measuring import cpus_here, rows_of
from serving.machine import devices
from serving.repository.folders import VersionFolder

log = logging.getLogger(__name__)

FOLDER = ".measured"
MOST_FIGURES = 64  # of a version
MOST_KNOWN = 1000  # versions, in memory
MOST_SECONDS = 1e6

Figures = dict[Candidate, Measured]
Known = Callable[[VersionFolder, Sequence[Candidate]], Mapping[Candidate, Measured]]


def user_cache() -> Path:
    """Where figures are kept, unless somebody says otherwise, for models whose folders cannot be written."""
    return user_folder("measured")


def checked_cache(named: str) -> Path:
    """A folder that figures may be kept in, made if it is not there. Raises `StartupError` where it is not ours alone."""
    folder = Path(named)
    try:
        if not named.strip():  # it would be the folder that the server was started in
            raise PermissionError(0, "no folder is named")
        folder.mkdir(0o700, parents=True, exist_ok=True)
        with opened(folder, private=True):
            return folder
    except OSError as error:
        raise StartupError(
            f"--auto-cache {shlex.quote(named)} cannot be used: {error.strerror or error}; name a folder of your own with mode "
            "0700, one that is not there yet, or 'off'"
        ) from error


class Measurements:
    """Finds and keeps figures; `learnt` has what batches took. For any thread.

    `cache()` is the folder for models whose own cannot be written; None for none.
    """

    def __init__(self, *, allow_tf32: bool = False, cache: Callable[[], Path | None] = user_cache) -> None:
        self._allow_tf32 = allow_tf32
        self._kept = Kept(FOLDER, cache)
        self.learnt = Learnt(self._kept, self.key)
        self._told = False
        self._writing = threading.Lock()  # one at a time; whoever looks for something does not wait for it
        self._lock = threading.Lock()  # guards the two below, and is not held while something is written
        self._known: dict[str, Figures] = {}
        self._alike: dict[object, Figures] = {}

    def find(self, folder: VersionFolder, candidates: Sequence[Candidate]) -> Mapping[Candidate, Measured]:
        """What is known of these candidates for a version; not all of them need be in it."""
        try:
            key, alike = self.key(folder, candidates), _alike(folder)
            with self._lock:
                figures = {**self._alike.get(alike, {}), **self._known_of(folder, key)}
        except (OSError, StartupError):  # whoever loads it meets that, too
            return {}
        return {candidate: figures[candidate] for candidate in candidates if candidate in figures}

    def keep(
        self, folder: VersionFolder, candidates: Sequence[Candidate], found: Sequence[Measured], key: Key | None = None
    ) -> bool:
        """Keeps what was found of some of the `candidates` that a version has. Where no folder takes it, the log says so once.

        `key` is what `key` said before it was measured. Where the files are others by now, nobody knows of which it was found:
        nothing is kept, and this is False. Raises `OSError` or `StartupError` where the version cannot be read any more,
        `ValueError` for figures of other numbers of rows than those that are measured.
        """
        now = self.key(folder, candidates)
        if key is not None and key != now:
            return False
        able = {one.candidate: one for one in found if not one.failed}
        rows = set(rows_of(folder.spec()))
        if any(set(one.p50_seconds) != rows for one in able.values()):
            raise ValueError(f"figures are kept of {sorted(rows)} rows, and these are of others")
        alike = _alike(folder)
        with self._writing:
            with self._lock:
                self._known_of(folder, now)  # what is on disk stays there
                known = _add(self._known, name_of(now), {one.candidate: one for one in found})
                _add(self._alike, alike, able)
            lasting = [_written(one) for one in known.values() if not one.failed][:MOST_FIGURES]
            if found and lasting:
                self._tell_once(self._kept.keep(folder.path.parent, now, {"figures": lasting}))
        return True

    def key(self, folder: VersionFolder, candidates: Sequence[Candidate]) -> Key:
        """What is found of these candidates of a version is kept by. Raises `OSError`."""
        places = sorted({candidate.device for candidate in candidates})
        return measured_key(folder, places, cpus_here(), allow_tf32=self._allow_tf32)

    def _known_of(self, folder: VersionFolder, key: Key) -> Figures:
        """What is known of these very files; read once, from every place that has some of it. The lock is held."""
        name = name_of(key)
        if name not in self._known:
            read: Figures = {}
            checked = functools.partial(_checked, rows=rows_of(folder.spec()))
            for figures in self._kept.each(folder.path.parent, key, checked):
                read = {**figures, **read}
            _add(self._known, name, read)
        return self._known[name]

    def _tell_once(self, reasons: Sequence[str]) -> None:
        if reasons and not self._told:
            self._told = True
            log.warning(
                "what was measured cannot be kept, so every start measures again when nobody asks: let the model's folder be "
                "written (%s), or name a folder with --auto-cache",
                "; ".join(reasons),
            )


def measured_key(folder: VersionFolder, places: Sequence[str], cpus: int, *, allow_tf32: bool) -> dict[str, Any]:
    """What measurements of a version on these devices are remembered by, JSON-ready: files, runtimes, machine.

    The files are all of the version's, its signature in spec.json among them. Raises `OSError`.
    """
    return {
        "files": folder_digest(folder.path),
        "versions": {name: backends.module(name).version() for name in folder.formats()},
        "processor": devices.processor(),
        "cpus": cpus,
        "gpus": {place: devices.gpu(index) for place in places if (index := devices.cuda_index(place)) is not None},
        "allow_tf32": allow_tf32,
    }


def _alike(folder: VersionFolder) -> object:
    spec = folder.spec()
    sizes = tuple((name, _bytes(folder.artifact(name))) for name in folder.formats())
    return spec.inputs, spec.outputs, sizes


def _bytes(artifact: Path) -> int:
    """The size of what is computed with; TensorFlow's digest of a SavedModel is a few random bytes longer or shorter."""
    return sum(file.stat().st_size for file in artifact_files(artifact) if file.name != "fingerprint.pb")


def _add(store: dict[Any, Figures], key: object, found: Figures) -> Figures:
    """What a bounded store holds for the key by then; the oldest goes."""
    figures = store[key] = {**store.pop(key, {}), **found}
    if len(store) > MOST_KNOWN:
        del store[next(iter(store))]
    return figures


def _written(one: Measured) -> dict[str, Any]:
    place = one.candidate
    times = {str(rows): seconds for rows, seconds in one.p50_seconds.items()}
    return {"backend": place.backend, "device": place.device, "threads": place.threads, "p50_seconds": times}


def _checked(fields: Mapping[str, Any], rows: Sequence[int]) -> Figures:
    """The figures of an entry, each of so many `rows`. Raises `ValueError`, or another error of what does not fit."""
    figures = fields["figures"]
    if not isinstance(figures, list) or len(figures) > MOST_FIGURES:
        raise ValueError(f"its figures are no list of at most {MOST_FIGURES}")
    found = [_figure(one) for one in figures]
    if any(set(one.p50_seconds) != set(rows) for one in found):
        raise ValueError(f"its figures are of other numbers of rows than {', '.join(map(str, rows))}")
    return {one.candidate: one for one in found}


def _figure(fields: Mapping[str, Any]) -> Measured:
    candidate = Candidate(fields["backend"], fields["device"], fields["threads"])
    times = {int(rows): seconds for rows, seconds in fields["p50_seconds"].items()}
    names_fit = candidate.backend in _backends() and isinstance(candidate.device, str) and len(candidate.device) < 16
    threads_fit = type(candidate.threads) is int and 1 <= candidate.threads <= 1024
    sane = all(type(one) is float and math.isfinite(one) and 0 < one < MOST_SECONDS for one in times.values())
    if not (names_fit and threads_fit and sane):
        raise ValueError("it holds what no measurement gives")
    return Measured(candidate, times)


@functools.cache
def _backends() -> frozenset[str]:
    return frozenset(backends.names())
