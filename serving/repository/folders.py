"""The model repository as it lies on disk: which models and versions are there, and what each version folder holds.

Only reads. What is in memory is the manager's business. Whatever starts with a dot is not there, since that is how a
version looks while its exporter is still writing it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from serving import backends
from serving.errors import RepositoryError
from serving.signature.spec import FILE_NAME as SPEC_FILE
from serving.signature.spec import LABELS_FILE, ModelSpec
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
        return (self.path / SPEC_FILE).exists() or (self.path / golden.FILE_NAME).exists()

    def spec(self) -> ModelSpec:
        """The facts that its exporter wrote. Raises `RepositoryError`."""
        return ModelSpec.read(_plain_file(self.path / SPEC_FILE))

    def samples(self) -> list[golden.Sample]:
        """The golden samples. Raises `RepositoryError`."""
        return golden.read_samples(_plain_file(self.path / golden.FILE_NAME))

    def artifact(self, backend: str) -> Path:
        """Where the file or folder lies that this backend reads; it need not be there."""
        return self.path / backends.module(backend).FILE_NAME

    def fingerprint(self) -> tuple[tuple[str, int, int], ...]:
        """What changes when any file of the version does: path, bytes and time of change of each. Raises `OSError`."""
        return _fingerprint(self.path)

    def formats(self) -> tuple[str, ...]:
        """The backends whose artefact is there, in the order of preference."""
        return tuple(name for name in backends.names() if self.artifact(name).exists())


def _fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    stats = [(path, path.stat() if path.exists() else path.lstat()) for path in files]
    return tuple((_named(folder, path), status.st_size, status.st_mtime_ns) for path, status in stats)


def _named(folder: Path, path: Path) -> str:
    """A file by its path in the folder and, if it is a link, by where that ends."""
    name = str(path.relative_to(folder))
    return f"{name} -> {os.path.realpath(path)}" if path.is_symlink() else name


def _plain_file(path: Path) -> Path:
    """The path. Raises `RepositoryError` where something else is that could not be read, such as a pipe."""
    if path.exists() and not path.is_file():
        raise RepositoryError(f"{path} is no plain file")
    return path


def _text(path: Path) -> str | None:
    """The text of a small file, None where there is none. Raises `RepositoryError`; a pipe would be waited at for ever."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise RepositoryError(f"{path} is no plain file")
        if status.st_size > MAX_TEXT_BYTES:
            raise RepositoryError(f"{path} has {status.st_size} bytes; at most {MAX_TEXT_BYTES} are read")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{path} cannot be read: {error}") from error


@dataclasses.dataclass(frozen=True)
class Repository:
    """A folder with one folder for each model."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            kind = "is not a folder" if self.path.exists() else "does not exist"
            raise RepositoryError(f"the model repository {self.path} {kind}; name one with --model-repository DIR")

    def models(self) -> list[str]:
        """Names of the models, sorted."""
        names = sorted(entry.name for entry in self.path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        for name in names:
            if not name.isprintable():  # also what is no UTF-8, and could not be named by any client
                log.warning("not served: the folder %a has a name that is no plain text", name)
        return [name for name in names if name.isprintable()]

    def has(self, model: str) -> bool:
        """Whether there is a model of that name. Raises `OSError` where that cannot be looked up."""
        plain = model.isprintable() and "/" not in model and not model.startswith(".")
        return bool(model) and plain and (self.path / model).is_dir()

    def fingerprint(self, model: str) -> tuple[tuple[str, int, int], ...]:
        """What changes when any file of the model does, versions that are being written (`.name`) left out. Raises `OSError`.

        Of a version that is a link to a folder elsewhere it is the link and the folder that are looked at, not the files.
        """
        return tuple(entry for entry in _fingerprint(self.path / model) if not entry[0].startswith("."))

    def config_text(self, model: str) -> str | None:
        """The text of the model's `config.pbtxt`, or None where there is none. Raises `RepositoryError`."""
        return _text(self.path / model / CONFIG_FILE)

    def labels(self, model: str) -> tuple[str, ...]:
        """The class names beside the versions, one a line; none where there is no such file. Raises `RepositoryError`."""
        text = (_text(self.path / model / LABELS_FILE) or "").removesuffix("\n")
        return tuple(text.split("\n")) if text else ()

    def versions(self, model: str) -> Sequence[VersionFolder]:
        """The versions of a model, lowest first. Raises `RepositoryError` where there is none."""
        folder = self.path / model
        found = [
            VersionFolder(int(entry.name), entry)
            for entry in folder.iterdir()
            if entry.is_dir() and entry.name.isascii() and entry.name.isdigit() and not entry.name.startswith("0")
        ]
        if not found and (folder / SPEC_FILE).exists():
            raise RepositoryError(
                f"{folder} is a version, not a model: serve the folder above {self.path}, which holds the models"
            )
        if not found:
            raise RepositoryError(
                f"{folder} holds no version: a version is a folder named by a whole number from 1, like {folder / '1'}"
            )
        return sorted(found, key=lambda version: version.number)
