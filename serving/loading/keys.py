"""Which versions need a trial, and what one is remembered by."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from serving import backends
from serving.backends.base import Candidate, artifact_files
from serving.errors import StartupError
from serving.loading.digests import folder_digest, known_digest
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
    return {"artifact": known_digest(artifact_files(folder.artifact(backend))), "backend": backend}


def _digest(folder: VersionFolder, candidate: Candidate) -> str:
    """Of every file that may be read when it is loaded: all of the version's, but for the other backends' artefacts."""
    others = [folder.artifact(name) for name in backends.names() if name != candidate.backend]
    return folder_digest(folder.path, without=others)


def needed(folder: VersionFolder, candidate: Candidate) -> bool:
    """Whether a version could end the process for all that is known: its runtime may, and the files are not ours."""
    return bool(backends.module(candidate.backend).LEVELS) and not ours(folder, candidate.backend)


def ours(folder: VersionFolder, backend: str) -> bool:
    """Whether a backend's artefact is, byte for byte, what one of our own writers has made."""
    artifact = folder.artifact(backend)
    with contextlib.suppress(StartupError, OSError, KeyError, TypeError):  # no spec.json, or none that says so
        digests = folder.spec().source["export"][OWN_FILES]
        return bool(digests[artifact.name] == known_digest(artifact_files(artifact)))
    return False
