"""What was seen to load, kept on disk, so that a trial is held once and not at every start.

It is kept in the model's own folder (`MODEL/.trials/`, which neither this server nor Triton takes for a version, and which is no
change of the repository), or where that cannot be written in the user's cache. An entry is a small JSON file named by the
digest of what was tried. Nothing in it is believed that does not fit: whoever could write a wrong entry could have
written the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from serving.loading.request import Tried

log = logging.getLogger(__name__)

FOLDER = ".trials"
FORMAT = 1
MOST_BYTES = 16 * 1024
MOST_ENTRIES = 64  # of a folder; the oldest go
MOST_WORDS = 2000
Key = Mapping[str, Any]


def name_of(key: Key) -> str:
    """The name of the file that holds what was found for a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40] + ".json"


def cache_folder() -> Path:
    """Where it is kept for models whose folders cannot be written: that of the user (XDG Base Directory Specification)."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path("~/.cache").expanduser()) / "lstm-serving" / "trials"


class Remembered:
    """Finds and keeps what trials have found. Used from any loader thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = False

    def find(self, model: Path, key: Key) -> Tried | None:
        """What was found for `key`, which stands for files, runtime and options, by whichever server tried it first."""
        for folder, private in _places(model):
            with contextlib.suppress(OSError, RuntimeError), _opened(folder, private=private) as descriptor:
                if (tried := _read(descriptor, name_of(key), key)) is not None:
                    return tried
        return None

    def keep(self, model: Path, key: Key, tried: Tried) -> None:
        """Keeps it in the first place that takes it. Where none does, the next start tries again, and the log says so once."""
        data = json.dumps({"format": FORMAT, "key": dict(key), **dataclasses.asdict(tried)}, indent=1).encode()
        reasons = []
        for folder, private in _places(model):
            try:
                with self._lock:
                    folder.mkdir(0o700 if private else 0o755, parents=private, exist_ok=True)
                    with _opened(folder, private=private) as descriptor:
                        _write(descriptor, name_of(key), data)
                        return
            except (OSError, RuntimeError) as error:
                reasons.append(f"{folder}: {getattr(error, 'strerror', None) or error}")
        if not self._told:
            self._told = True
            log.warning(
                "what was loaded on trial cannot be remembered, so every start tries it again, which takes a second or more for "
                "each version: let the model's folder or the cache be written (%s), or know your files and set --trial off",
                "; ".join(reasons),
            )


def _places(model: Path) -> Iterator[tuple[Path, bool]]:
    """Folders in the order in which they are looked at, and whether only we may write there."""
    yield model / FOLDER, False
    with contextlib.suppress(RuntimeError):  # a user without a home
        yield cache_folder(), True


@contextlib.contextmanager
def _opened(folder: Path, *, private: bool) -> Iterator[int]:
    """A descriptor of the folder itself, never of what a link there leads to. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        status = os.fstat(descriptor)
        if private and (status.st_uid != os.geteuid() or status.st_mode & 0o077):
            raise PermissionError(0, "it belongs to somebody else, or others may read or write it")
        yield descriptor
    finally:
        os.close(descriptor)


def _read(folder: int, name: str, key: Key) -> Tried | None:
    """What an entry says, None where there is none, or none that fits."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = file.read(MOST_BYTES + 1)
    try:
        fields = json.loads(data)
        level, remark = fields["level"], fields["remark"]
        fits = len(data) <= MOST_BYTES and fields["format"] == FORMAT and fields["key"] == dict(key)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    text = all(isinstance(one, str) and (one.isprintable() or not one) for one in (level, remark))
    return Tried(level, remark) if fits and text and len(remark) <= MOST_WORDS else None


def _write(folder: int, name: str, data: bytes) -> None:
    """A whole entry or none; the oldest make room."""
    being_written = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(being_written, flags, 0o644, dir_fd=folder), "wb") as file:
            file.write(data)
        os.rename(being_written, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:  # a disk that is full would get another one at each start
        with contextlib.suppress(OSError):
            os.unlink(being_written, dir_fd=folder)
        raise
    entries = [entry for entry in os.listdir(folder) if entry != name]
    if len(entries) < MOST_ENTRIES:
        return
    ages = {entry: os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mtime for entry in entries}
    for entry in sorted(entries, key=ages.__getitem__)[: len(entries) - MOST_ENTRIES + 1]:
        with contextlib.suppress(OSError):  # another server was faster
            os.unlink(entry, dir_fd=folder)
