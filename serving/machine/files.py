"""What lies at a path, before it is opened: a pipe is waited at for ever, and a broken link looks like nothing at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from serving.errors import RepositoryError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def is_plain(path: Path) -> bool:
    """Whether a plain file lies there; False where nothing does. Raises `RepositoryError` where something else does.

    A link that leads nowhere is something else, since whoever made it meant something by it.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise RepositoryError(f"{path} is a symbolic link to {path.readlink()}, which is not there") from None
        return False
    except (OSError, ValueError) as error:
        raise RepositoryError(f"{path} cannot be looked at: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISREG(mode):
        return True
    kind = next((name for fits, name in _KINDS if fits(mode)), "something else")
    raise RepositoryError(f"{path} is {kind}, no plain file")


def check_readable(folder: Path) -> None:
    """Raises `RepositoryError` where the names in a folder cannot be read: nothing would seem to be in it."""
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise unreadable(folder, error) from error


def beginning(file: Path, most: int) -> bytes:
    """The first bytes of a file. Raises `RepositoryError` where it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(most)
    except OSError as error:
        raise unreadable(file, error) from error


def unreadable(path: Path, error: OSError) -> RepositoryError:
    """The sentence about what cannot be read."""
    advice = (
        "; let the user that the server runs as read it, as with chmod -R a+rX" if error.errno == errno.EACCES else ""
    )
    return RepositoryError(f"{path} cannot be read: {error.strerror}{advice}")
