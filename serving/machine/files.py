"""What lies at a path, before it is opened: a pipe is waited at for ever, and a broken link looks like nothing at all."""

from __future__ import annotations

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
