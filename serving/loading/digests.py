"""Digests of files that are asked for again and again: worked out once, as long as the files do not change."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.backends.base import files_digest


def folder_digest(folder: Path, without: Sequence[Path] = ()) -> str:
    """SHA-256 (hex) of names and contents of the plain files of a folder and its subfolders. Raises `OSError`.

    What lies at or below the paths `without` is left out.
    """
    files = {
        path: str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not any(path.is_relative_to(other) for other in without)
    }
    return known_digest(files)


def known_digest(files: Mapping[Path, str]) -> str:
    """SHA-256 (hex) of names and contents, the names being the values of `files`. Raises `OSError`."""
    stats = [path.stat() for path in files]
    return _digest_of(tuple(files.items()), tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in stats))


@functools.lru_cache(maxsize=256)
def _digest_of(files: tuple[tuple[Path, str], ...], _: tuple[tuple[int, int, int], ...]) -> str:
    return files_digest(dict(files))
