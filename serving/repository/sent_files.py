"""What a client may send along with a load: another configuration, and the files of the model themselves.

Files go into a folder of their own, laid out as a repository with one model, so that everything else is as ever. As in
Triton, files that are sent replace the whole model; nothing of the repository is mixed in.

A folder is locked for as long as its server lives. A process that is killed removes nothing, but its locks end with it, and by
that the next server on the machine knows what nobody uses any more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from serving.errors import InvalidRequest
from serving.repository.folders import Repository
from serving.signature.spec import LABELS_FILE

log = logging.getLogger(__name__)

FILE_PREFIX = "file:"
PREFIX = "lstm-serving-sent-"  # how the folders are called, in the folder for what is temporary
_LABELS = ".txt"  # what a file beside the versions ends with, as Triton's examples call them
# Errors by which a disk says that names are too long, or that a file would lie within a file.
_OF_NAMES = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclasses.dataclass(frozen=True)
class Override:
    """`repository` holds the files that were sent; `lock` is the open folder that says so to other servers."""

    repository: Repository
    lock: int | None = None

    def discard(self) -> None:
        """Removes the files; the backends that were made of them are closed."""
        shutil.rmtree(self.repository.path, ignore_errors=True)
        if self.lock is not None:
            os.close(self.lock)


def write(name: str, files: Mapping[str, bytes]) -> Override:
    """Writes the files that were sent for model `name`; `files` maps `VERSION/PATH` to contents.

    Raises `InvalidRequest` for a path that leads out of the version, names none or contradicts another, `OSError` when the
    disk does not take them, and then nothing is left behind.
    """
    paths = {path: _checked(name, path) for path in files}
    try:
        folder, lock = _own_folder()
    except FileNotFoundError as error:
        raise OSError(
            f"the files that were sent cannot be written: {error.strerror}; mount a folder for temporary files, or name one with "
            "the environment variable TMPDIR"
        ) from error
    made = Override(Repository(folder), lock)
    try:
        for path, content in files.items():
            target = folder / name / paths[path]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    except OSError as error:
        made.discard()
        if error.errno in _OF_NAMES:
            raise InvalidRequest(
                f"failed to load '{name}': load parameter '{FILE_PREFIX}{path[:200]}' "
                f"cannot become a file beside the others: {error.strerror}"
            ) from error
        raise OSError(
            f"the files that were sent cannot be written to {folder.parent}: {error.strerror}; name another folder with the "
            "environment variable TMPDIR"
        ) from error
    return made


def sweep() -> list[Path]:
    """Removes what servers have left behind that were killed, and returns it. Folders of servers that live are locked."""
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:  # a read-only file system without any, in which nobody has left anything
        return []
    gone = []
    for folder in temporary.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another's, or another server sweeps, too
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                gone.append(folder)
            finally:
                os.close(lock)
    return gone


def _own_folder() -> tuple[Path, int]:
    """A new folder that is locked; made again where a sweep came between making and locking it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a sweep has it, which removes it
            os.close(lock)
            continue
        except OSError as error:  # a file system without locks, on which a sweep removes nothing
            log.warning("%s cannot be locked: %s; it stays there if this server is killed", folder, error.strerror)
        if folder.exists() and folder.stat().st_ino == os.fstat(lock).st_ino:
            return folder, lock
        os.close(lock)


def _checked(name: str, path: str) -> PurePosixPath:
    """`1/model.onnx`, or `1/model.savedmodel/saved_model.pb`. Raises `InvalidRequest`."""
    parts = path.split("/")
    version, *inside = parts
    whole = version.isascii() and version.isdigit() and not version.startswith("0")
    harmless = all(part and part not in (".", "..") and part.isprintable() and "\\" not in part for part in inside)
    labels = not inside and version.endswith(_LABELS) and version.isprintable() and not version.startswith(".")
    if "\\" in path or not (labels or (whole and inside and harmless)):
        raise InvalidRequest(
            f"failed to load '{name}': load parameter '{FILE_PREFIX}{path[:200]}' "
            f"names no file of a version; it must be {FILE_PREFIX}VERSION/PATH, as "
            f"in {FILE_PREFIX}1/model.onnx, and stay within the version (or a file of labels, as {FILE_PREFIX}{LABELS_FILE})"
        )
    return PurePosixPath(path)
