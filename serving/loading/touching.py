"""Files whose rows were seen to touch each other while they served: known at the next load, whoever asks for it, and why."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

from serving.backends.base import Candidate
from serving.loading.kept import name_of
from serving.loading.keys import artifact_key
from serving.loading.remembered import Remembered
from serving.loading.request import Tried
from serving.repository.folders import VersionFolder


class Touching:
    """What watches have found, by the files and the backend: in memory, and where trials are remembered. For any thread."""

    def __init__(self, remembered: Remembered | None = None) -> None:
        self._remembered = remembered or Remembered()
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    def find(self, folder: VersionFolder, candidate: Candidate) -> str:
        """The sentence about rows that touch each other; "" if nothing is known of these files."""
        key = self._key(folder, candidate)
        if key is None:
            return ""
        with self._lock:
            if known := self._known.get(name_of(key)):
                return known
        found = self._remembered.find(folder.path.parent, key)
        return found.remark if found else ""

    def keep(self, folder: VersionFolder, candidate: Candidate, sentence: str) -> None:
        """Keeps it for every load of these files. Where nothing can be written it is known as long as the server lives."""
        key = self._key(folder, candidate)
        if key is not None:
            with self._lock:
                self._known[name_of(key)] = sentence
            self._remembered.keep(folder.path.parent, key, Tried(remark=sentence))

    def _key(self, folder: VersionFolder, candidate: Candidate) -> Mapping[str, Any] | None:
        with contextlib.suppress(OSError):  # whoever loads them meets it, too
            if folder.artifact(candidate.backend).exists():
                return {"rows": "touching", **artifact_key(folder, candidate.backend)}
        return None
