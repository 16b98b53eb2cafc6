"""Which versions need a trial, and what one is remembered by."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving import backends
from serving.backends.base import Candidate, artifact_files, files_digest
from serving.errors import StartupError
from serving.loading.request import LoadRequest
from serving.machine import devices
from serving.repository.folders import VersionFolder
from serving.signature.spec import OWN_FILES


def key_of(request: LoadRequest, candidate: Candidate) -> dict[str, Any] | None:
    """What a trial is remembered by, JSON-ready: digests of the files and the configuration, runtime and options.

    None where the version holds nothing for that backend. Raises `OSError`.
    """
    module = backends.module(candidate.backend)
    if not request.folder.artifact(candidate.backend).exists():
        return None
    return {
        "files": _digest(request.folder, candidate),
        "config": hashlib.sha256(request.config.written.SerializeToString(deterministic=True)).hexdigest(),
        "backend": candidate.backend,
        "version": module.version(),
        "processor": devices.processor(),
        "device": candidate.device,
        "threads": candidate.threads,
        "allow_tf32": request.defaults.allow_tf32,
        "shadow": request.wrap is not None,
    }


def artifact_key(folder: VersionFolder, backend: str) -> dict[str, Any]:
    """What a backend's files are known by, however they are configured, JSON-ready. Raises `OSError`."""
    return {"artifact": _known_digest(artifact_files(folder.artifact(backend))), "backend": backend}


def _digest(folder: VersionFolder, candidate: Candidate) -> str:
    """Of every file that may be read when it is loaded: all of the version's, but for the other backends' artefacts."""
    others = [folder.artifact(name) for name in backends.names() if name != candidate.backend]
    files = {
        path: str(path.relative_to(folder.path))
        for path in folder.path.rglob("*")
        if path.is_file() and not any(path.is_relative_to(other) for other in others)
    }
    return _known_digest(files)


def _known_digest(files: Mapping[Path, str]) -> str:
    """Of files that have not changed it is worked out once. Raises `OSError`."""
    stats = [path.stat() for path in files]
    return _digest_of(tuple(files.items()), tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in stats))


@functools.lru_cache(maxsize=256)
def _digest_of(files: tuple[tuple[Path, str], ...], _: tuple[tuple[int, int, int], ...]) -> str:
    return files_digest(dict(files))


def needed(folder: VersionFolder, candidate: Candidate) -> bool:
    """Whether a version could end the process for all that is known: its runtime may, and the files are not ours."""
    return bool(backends.module(candidate.backend).LEVELS) and not ours(folder, candidate.backend)


def ours(folder: VersionFolder, backend: str) -> bool:
    """Whether a backend's artefact is, byte for byte, what one of our own writers has made."""
    artifact = folder.artifact(backend)
    with contextlib.suppress(StartupError, OSError, KeyError, TypeError):  # no spec.json, or none that says so
        digests = folder.spec().source["export"][OWN_FILES]
        return bool(digests[artifact.name] == _known_digest(artifact_files(artifact)))
    return False
