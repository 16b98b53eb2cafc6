"""Small JSON files that outlive a server: in the folder of the model that they are about, or in a folder of the user's.

A model's own folder goes first (`MODEL/.trials/`, say, which neither this server nor Triton takes for a version, and which is no
change of the repository), since whoever else serves the model finds it there, too. An entry is named by the digest of its
key. Nothing in it is believed that does not fit: whoever could write a wrong entry there could have written the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

FORMAT = 1
MOST_BYTES = 16 * 1024
MOST_ENTRIES, MOST_IN_CACHE = 64, 1024  # of a folder; the oldest go
OURS = re.compile(
    r"[0-9a-f]{40}\.json|\.[0-9a-f]{40}\.json\.[0-9a-f]+"
)  # entries, and what was left of one being written
Key = Mapping[str, Any]
Found = TypeVar("Found")


def name_of(key: Key) -> str:
    """The name of the file that holds what was found for a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:40] + ".json"


def user_folder(what: str) -> Path:
    """Where it is kept for models whose folders cannot be written: that of the user (XDG Base Directory Specification).

    Raises `RuntimeError` for a user without a home.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path("~/.cache").expanduser()) / "lstm-serving" / what


class Kept:
    """Finds and keeps entries in the folder called `folder` of a model, else in `cache()`, where only we may write.

    None stands for no such place. Used from any thread.
    """

    def __init__(self, folder: str, cache: Callable[[], Path | None]) -> None:
        self._folder = folder
        self._cache = cache

    def find(self, model: Path, key: Key, checked: Callable[[Mapping[str, Any]], Found]) -> Found | None:
        """What `checked` makes of the fields of the entry for `key`; None where there is none.

        An entry that does not fit, or for which that raises `ValueError`, `KeyError`, `TypeError` or `AttributeError`, is
        ignored, and the log says why.
        """
        return next(self.each(model, key, checked), None)

    def each(self, model: Path, key: Key, checked: Callable[[Mapping[str, Any]], Found]) -> Iterator[Found]:
        """The same from every place that has an entry for `key`, the model's own folder first."""
        for folder, private in self._places(model):
            try:
                with opened(folder, private=private) as descriptor:
                    found = checked(_read(descriptor, name_of(key), key))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                log.warning("ignored: %s: %s", folder / name_of(key), _why(error))
                continue
            yield found

    def keep(self, model: Path, key: Key, fields: Mapping[str, Any]) -> list[str]:
        """Keeps it in the first place that takes it; why none does, or nothing."""
        data = json.dumps({"format": FORMAT, "key": dict(key), **fields}, indent=1).encode()
        if len(data) > MOST_BYTES:
            return [f"it has {len(data)} bytes, more than {MOST_BYTES}"]
        reasons = []
        for folder, private in self._places(model):
            try:
                folder.mkdir(0o700 if private else 0o755, parents=private, exist_ok=True)
                with opened(folder, private=private) as descriptor:
                    _write(descriptor, name_of(key), data)
                    _make_room(descriptor, name_of(key), MOST_IN_CACHE if private else MOST_ENTRIES)
                    return []
            except OSError as error:
                reasons.append(f"{folder}: {_why(error)}")
        return reasons

    def _places(self, model: Path) -> Iterator[tuple[Path, bool]]:
        """Folders in the order in which they are looked at, and whether only we may write there."""
        yield model / self._folder, False
        with contextlib.suppress(RuntimeError):  # a user without a home
            if cache := self._cache():
                yield cache, True


@contextlib.contextmanager
def opened(folder: Path, *, private: bool) -> Iterator[int]:
    """A descriptor of the folder itself, never of what a link there leads to. Raises `OSError`.

    A `private` one is ours and nobody else may read or write it.
    """
    if folder.is_symlink():
        raise PermissionError(0, "it is a symbolic link, and none is followed")
    descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0))
    try:
        status = os.fstat(descriptor)
        if private and (status.st_uid != os.geteuid() or status.st_mode & 0o077):
            raise PermissionError(0, "it belongs to somebody else, or others may read or write it")
        yield descriptor
    finally:
        os.close(descriptor)


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or f"{error or type(error).__name__}"


def _read(folder: int, name: str, key: Key) -> Mapping[str, Any]:
    """The fields of an entry. Raises `OSError`, or one of the errors of what does not fit."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is no plain file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    fields: Mapping[str, Any] = json.loads(data)
    if fields["format"] != FORMAT or fields["key"] != dict(key):
        raise ValueError("it is of another format, or about something else than its name says")
    return fields


def _write(folder: int, name: str, data: bytes) -> None:
    """A whole entry or none. What lies at any name, a pipe or a link to a file of others, is neither opened nor changed."""
    being_written = f".{name}.{secrets.token_hex(8)}"
    descriptor = os.open(being_written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.rename(being_written, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:  # a disk that is full would get another one at each start
        with contextlib.suppress(OSError):
            os.unlink(being_written, dir_fd=folder)
        raise


def _make_room(folder: int, name: str, most: int) -> None:
    """The oldest entries go, never this one. What is not ours neither counts nor goes: the folder may be one of the user's."""
    ages: dict[str, float] = {}
    for entry in filter(OURS.fullmatch, os.listdir(folder)):
        with contextlib.suppress(FileNotFoundError):  # another server was faster
            status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
            if entry != name and stat.S_ISREG(status.st_mode):
                ages[entry] = status.st_mtime
    for entry in sorted(ages, key=ages.__getitem__)[: max(0, len(ages) - most + 1)]:
        with contextlib.suppress(OSError):
            os.unlink(entry, dir_fd=folder)
