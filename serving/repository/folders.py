"""The model repository as it lies on disk: which models and versions are there, and what each version folder holds.

Only reads. What is in memory is the manager's business. Whatever starts with a dot is not there, since that is how a
version looks while its exporter is still writing it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from serving import backends
from serving.errors import RepositoryError
from serving.machine import files
from serving.signature.spec import FILE_NAME as SPEC_FILE
from serving.signature.spec import ModelSpec
from serving.verification import golden

log = logging.getLogger(__name__)

CONFIG_FILE = "config.pbtxt"
MAX_TEXT_BYTES = 4 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class VersionFolder:
    """One version on disk: `number` from 1, `path` its folder."""

    number: int
    path: Path

    @property
    def described(self) -> bool:
        """Whether an exporter of ours wrote it; a bare file lies there alone."""
        return any(os.path.lexists(self.path / name) for name in (SPEC_FILE, golden.FILE_NAME))

    def spec(self) -> ModelSpec:
        """The facts that its exporter wrote. Raises `RepositoryError`."""
        path = self.path / SPEC_FILE
        files.is_plain(path)
        return ModelSpec.read(path)

    def samples(self) -> list[golden.Sample]:
        """The golden samples. Raises `RepositoryError`."""
        return golden.read_samples(self.path / golden.FILE_NAME)

    def artifact(self, backend: str) -> Path:
        """Where the file or folder lies that this backend reads; it need not be there."""
        return self.path / backends.module(backend).FILE_NAME

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """What changes when any file of the version does: path, bytes and time of change of each. Raises `OSError`."""
        return _fingerprint(self.path)

    def check(self) -> None:
        """Raises `RepositoryError` where it cannot be read, and where anything in it is no plain file.

        A pipe, say, would be waited at for ever.
        """
        files.check_readable(self.path)
        for path in self.path.rglob("*"):
            if not _is_folder(path):
                files.is_plain(path)

    def formats(self) -> tuple[str, ...]:
        """The backends whose artefact is there, in the order of preference."""
        return tuple(name for name in backends.names() if os.path.lexists(self.artifact(name)))


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    if not _is_folder(folder):  # a link that cannot be followed
        return ()
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    stats = [(path, path.lstat() if _leads_nowhere(path) else path.stat()) for path in files]
    return tuple((_named(folder, path), status.st_size, status.st_mtime_ns) for path, status in stats)


def _named(folder: Path, path: Path) -> str:
    """A file by its path in the folder and, if it is a link, by where that ends."""
    name = str(path.relative_to(folder))
    return f"{name} -> {os.path.realpath(path)}" if path.is_symlink() else name


def _is_number(name: str) -> bool:
    """Whether a folder of that name is a version."""
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) < 19


def _of_a_version(folder: Path) -> str:
    """The first file of a folder that stands in versions alone; empty if there is none."""
    known = (SPEC_FILE, *(backends.module(name).FILE_NAME for name in backends.names()))
    return next((name for name in known if os.path.lexists(folder / name)), "")


def _text(path: Path) -> str | None:
    """The text of a small file, None where there is none. Raises `RepositoryError`; a pipe would be waited at for ever."""
    try:
        if not files.is_plain(path):
            return None
        if (size := path.stat().st_size) > MAX_TEXT_BYTES:
            raise RepositoryError(f"{path} has {size} bytes; at most {MAX_TEXT_BYTES} are read")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RepositoryError(
            f"{path} cannot be read: {error.reason} at byte {error.start}, so it is no UTF-8; save it as UTF-8 without BOM"
        ) from error
    except OSError as error:
        raise files.unreadable(path, error) from error


def _is_folder(path: Path) -> bool:
    """Whether a folder lies there. Raises `OSError` where nobody can tell, but for a link: that is one link's trouble alone."""
    try:
        return path.is_dir()
    except OSError:
        if path.is_symlink():
            return False
        raise


def _leads_nowhere(path: Path) -> bool:
    try:
        return path.is_symlink() and not path.exists()
    except OSError:  # it is a link, and where it leads nobody can tell
        return True


def _lost(link: Path) -> RepositoryError:
    """The sentence about a link that leads nowhere, or where nobody of ours may look."""
    try:
        link.stat()
        why = "which was not there a moment ago"
    except FileNotFoundError:
        why = "which is not there"
    except OSError as error:
        why = f"which cannot be looked at: {error.strerror}"
    return RepositoryError(f"{link} is a symbolic link to {link.readlink()}, {why}")


@dataclasses.dataclass(frozen=True)
class Repository:
    """A folder with one folder for each model."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            kind = "is not a folder" if self.path.exists() else "does not exist"
            raise RepositoryError(f"the model repository {self.path} {kind}; name one with --model-repository DIR")
        if held := _of_a_version(self.path):
            whole = self.path.absolute()
            advice = (
                f"it is a version; name the folder that holds the models, --model-repository {whole.parent.parent}"
                if _is_number(whole.name)
                else f"a repository holds a folder for each model, and that one for each version; put it into {whole}/MODEL/1"
            )
            raise RepositoryError(f"the model repository {self.path} holds {held} itself: {advice}")

    def models(self) -> list[str]:
        """Names of the models, sorted; a link that leads nowhere is one that cannot be loaded."""
        names = sorted(
            entry.name
            for entry in self.path.iterdir()
            if not entry.name.startswith(".") and (_is_folder(entry) or _leads_nowhere(entry))
        )
        for name in names:
            if not name.isprintable():  # also what is no UTF-8, and could not be named by any client
                log.warning("not served: the folder %a has a name that is no plain text", name)
        return [name for name in names if name.isprintable()]

    def has(self, model: str) -> bool:
        """Whether there is a model of that name. Raises `OSError` where that cannot be looked up."""
        plain = model.isprintable() and "/" not in model and not model.startswith(".")
        folder = self.path / model
        self.path.stat()  # raises where the whole repository has gone, which says nothing of its models
        return bool(model) and plain and (_is_folder(folder) or _leads_nowhere(folder))

    def fingerprint(self, model: str) -> tuple[tuple[str, int, int], ...]:
        """What changes when any file of the model does, versions that are being written (`.name`) left out. Raises `OSError`.

        Of a version that is a link to a folder elsewhere it is the link and the folder that are looked at, not the files.
        """
        return tuple(entry for entry in _fingerprint(self.path / model) if not entry[0].startswith("."))

    def config_text(self, model: str) -> str | None:
        """The text of the model's `config.pbtxt`, or None where there is none. Raises `RepositoryError`."""
        return _text(self.path / model / CONFIG_FILE)

    def labels(self, model: str, name: str) -> tuple[str, ...]:
        """The class names in a file beside the versions, one a line; none without such a file. Raises `RepositoryError`."""
        text = (_text(self.path / model / name) or "").removesuffix("\n")
        return tuple(text.split("\n")) if text else ()

    def versions(self, model: str) -> Sequence[VersionFolder]:
        """The versions of a model, lowest first. Raises `RepositoryError` where there is none."""
        folder = self.path / model
        if _leads_nowhere(folder):
            raise _lost(folder)
        numbered = [entry for entry in folder.iterdir() if _is_number(entry.name)]
        if lost := next((entry for entry in numbered if _leads_nowhere(entry)), None):
            raise _lost(lost)
        found = [VersionFolder(int(entry.name), entry) for entry in numbered if _is_folder(entry)]
        if not found:
            begin = f"failed to load '{model}', no version is available: {folder}"
            if (held := _of_a_version(folder)) and _is_number(model):
                raise RepositoryError(
                    f"{begin} is a version, not a model: it holds {held}; name the folder that holds the models, "
                    f"--model-repository {self.path.absolute().parent}"
                )
            raise RepositoryError(
                f"{begin} holds no version: a version is a folder named by a whole number from 1, like {folder / '1'}"
                + (f"; put {held} into it" if held else "")
            )
        return sorted(found, key=lambda version: version.number)
