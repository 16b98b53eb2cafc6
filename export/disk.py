"""What a disk refuses, in a sentence that says what to do."""

from __future__ import annotations

import errno
from pathlib import Path

_ADVICE = {
    errno.EROFS: "it can only be read; name a repository on a disk that can be written, with --repository DIR",
    errno.ENOSPC: "make room there, or name a repository on another disk, with --repository DIR",
    errno.EDQUOT: "make room there, or name a repository on another disk, with --repository DIR",
    errno.EACCES: "let your user write there, or name another repository, with --repository DIR",
}


def told(error: OSError, repository: Path) -> str:
    """The sentence about an export that the disk has stopped; the repository is named where what failed was in it."""
    advice = _ADVICE.get(error.errno or 0)
    if advice is None:
        return str(error)
    file = str(error.filename or "")
    place = repository if not file or Path(file).is_relative_to(repository) else file
    return f"{place}: {error.strerror}: {advice}; nothing was published"
