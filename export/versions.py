"""A version of a model: what it may be called, what is known of it, and how it appears whole in a repository or not at all.

`rename` refuses a folder that exists and is not empty, on every file system. That alone keeps two exports of the same
moment apart. An export locks the folder that it works in, so that the next one can tell what a killed one has left from
what is in the making, and takes it away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from export import stateful
from export.errors import ExportError
from export.float64 import check_tolerance
from export.samples import NO_SAMPLES, UserSamples
from serving.backends.base import artifact_digest
from serving.errors import StartupError
from serving.signature import spec as specification
from serving.signature.spec import LABELS_FILE, OWN_FILES, ModelSpec
from serving.verification import company, golden
from serving.verification.golden import Sample

_WORK = ".export-"  # how the folder of an export begins; the server leaves out whatever begins with a dot
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Where a version goes and what is said of it: `described` says where the network comes from, JSON-ready.

    `samples` are a person's own, which the version is proved on beside made ones. With `stateful` the model's config.pbtxt is to
    say that its state is kept.
    """

    repository: Path
    name: str
    version: int | None = None
    tolerance: float = company.TOLERANCE
    described: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    samples: UserSamples = NO_SAMPLES
    stateful: bool = False

    def check(self) -> None:
        """Raises `ExportError` when a version of that name or number cannot be written."""
        check_name(self.name)
        check_tolerance(self.tolerance)
        if self.version is not None:
            check_version(self.repository / self.name, self.version)


@dataclasses.dataclass(frozen=True)
class Written:
    """One format of a version: the size of its file or folder, and its largest disagreement with the trained model."""

    format: str
    size_bytes: int
    largest_difference: float


@dataclasses.dataclass(frozen=True)
class NotWritten:
    """A format that was to be had if it can be, and why it cannot."""

    format: str
    why: str


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What keeping the weights smaller has changed: the largest `|a - b| / max(1, |b|)` of any answer, and the test scores.

    `scores` has those of the rounded network by the names that the trained one has; it is empty where the run does not hold
    what they are measured on.
    """

    precision: str
    largest_difference: float
    scores: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Version:
    """A version that is in the repository now."""

    path: Path
    written: tuple[Written, ...]
    rounding: Rounding | None = None
    not_written: tuple[NotWritten, ...] = ()


def what_can_be(
    forms: Iterable[str], write: Callable[[str], Written], folder: Path, *, every: bool
) -> tuple[list[Written], list[NotWritten]]:
    """Has every format written into `folder`; with `every` one that cannot be is told rather than raised, and leaves nothing.

    Raises what `write` raises without `every`, and `ExportError` with all the reasons when no format can be had.
    """
    written: list[Written] = []
    failed: list[NotWritten] = []
    for form in forms:
        there = set(folder.iterdir())
        try:
            written.append(write(form))
        except (ExportError, StartupError) as error:
            if not every:
                raise
            failed.append(NotWritten(form, str(error)))
            for left in set(folder.iterdir()) - there:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    if failed and not written:
        raise ExportError("; ".join(each.why for each in failed))
    return written, failed


def check_name(name: str) -> None:
    """Raises `ExportError` unless `name` can be a model's name: one component of a path, visible, portable."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise ExportError(
            f"the name {name!r} cannot be used: letters, digits, '.', '_' and '-', at most 128, a letter or digit first"
        )


def next_version(target: Path) -> int:
    """One more than the highest number that anything in a model's folder has; 1 where there is no folder."""
    if not target.is_dir():
        return 1
    numbers = (int(entry.name) for entry in target.iterdir() if entry.name.isascii() and entry.name.isdigit())
    return max(numbers, default=0) + 1


def check_version(target: Path, version: int) -> None:
    """Raises `ExportError` unless `version` is a number that a version may have and none has yet."""
    if version < 1:
        raise ExportError(f"version is {version}; versions are counted from 1")
    if os.path.lexists(target / str(version)):
        raise ExportError(
            f"{target / str(version)} exists, and versions are never overwritten: leave the version out for the next one"
        )


@contextlib.contextmanager
def begun(repository: Path) -> Iterator[Path]:
    """An empty folder on the repository's file system, in which a version is made; gone afterwards unless it was finished.

    Takes away what exports that were killed have left there.
    """
    repository.mkdir(parents=True, exist_ok=True)
    _sweep(repository)
    work, lock = _work(repository)
    folder = work / "version"
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def _work(repository: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock, which ends with the process however that ends."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=repository))
        try:
            lock = os.open(work, os.O_RDONLY)
        except FileNotFoundError:  # another export took it for left behind already
            continue
        # Where a file system has no locks, nobody else gets this one either, and nothing is swept.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if work.exists():
            return work, lock
        os.close(lock)  # another export took it for left behind before it was locked


def _sweep(repository: Path) -> None:
    """Removes the folders of exports that are no longer running; what cannot be removed is no reason to stop."""
    for left in repository.glob(f"{_WORK}*"):
        try:
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # it is gone, or no folder, or somebody else's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, or a file system without locks
            continue
        else:
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(lock)


def finish(
    folder: Path,
    target: Path,
    version: int | None,
    spec: ModelSpec,
    samples: Sequence[Sample],
    labels: str = "",
    *,
    own: Sequence[Path] = (),
    check: Callable[[Path], None] = lambda folder: None,
    keeps_state: bool = False,
) -> Path:
    """Adds the facts and the golden samples to a version in the folder of `begun`, and moves it into the model's `target`.

    `version` is its number, the next one if None. `labels` is the text of labels.txt; the first version of a model appears
    together with the model's folder and that file. The digests of what our `own` writers have made are kept, and a server
    knows it by them. `check` sees the whole version last, and what it raises stops it. With `keeps_state` config.pbtxt
    of the model says so. Everything is on disk before it appears. Returns where it is; raises `ExportError` when its number has
    been taken meanwhile or its state cannot be kept, and `OSError`.
    """
    if keeps_state:
        stateful.check(spec)
        stateful.configuration(target)
    if own:
        digests = {artifact.name: artifact_digest(artifact) for artifact in own}
        made = {**spec.source.get("export", {}), OWN_FILES: digests}
        spec = dataclasses.replace(spec, source={**spec.source, "export": made})
    golden.write_samples(folder / golden.FILE_NAME, samples)
    (folder / specification.FILE_NAME).write_text(spec.to_json(), encoding="utf-8")
    check(folder)
    _sync_tree(folder)
    number = version or next_version(target)
    model = folder.parent / "model"
    model.mkdir()
    if labels:
        (model / LABELS_FILE).write_text(labels, encoding="utf-8")
        _sync(model / LABELS_FILE)
    if keeps_state:
        _configure(model, target)
    folder = folder.rename(model / str(number))
    _sync(model)
    if not _moved(model, target):
        if labels and not (target / LABELS_FILE).exists():
            (model / LABELS_FILE).rename(target / LABELS_FILE)
        while not _moved(folder, target / str(number)):
            if version is not None:
                raise ExportError(f"{target / str(number)} was written by another export meanwhile")
            number += 1
        if keeps_state:
            _configure(model, target).replace(target / stateful.CONFIG_FILE)
        _sync(target)
    _sync(target.parent)
    return target / str(number)


def _configure(model: Path, target: Path) -> Path:
    """The config.pbtxt in the folder `model`: what the model's `target` has, and that its state is kept."""
    written = model / stateful.CONFIG_FILE
    written.write_text(stateful.configuration(target), encoding="utf-8")
    _sync(written)
    return written


def _moved(folder: Path, target: Path) -> bool:
    """Renames `folder` to `target`; false when something is there already."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in _TAKEN or not target.parent.is_dir():
            raise
        return False
    return True


def _sync_tree(folder: Path) -> None:
    """Files first, then the folders that name them, inner ones first."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
