"""What is in memory: every version that is known, its state, and leases on those that can answer.

States and the messages about them follow Triton, since its clients branch on them. One fact that surprises: a model
that failed to load stays known, with its reason, and keeps the server from being ready: nobody should send traffic to a
replica that lacks a model.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from serving import config, loader
from serving.errors import InvalidRequest, NotReady, StartupError, UnknownModel, UnknownVersion
from serving.loader import Placement
from serving.metrics import ModelMetrics
from serving.model import Lease, Model
from serving.repository import Repository

log = logging.getLogger(__name__)

State = Literal["LOADING", "READY", "UNLOADING", "UNAVAILABLE"]


@dataclasses.dataclass(kw_only=True)
class Entry:
    """One version that is known. `version` is empty for a model whose versions could not even be listed."""

    name: str
    version: str
    state: State
    reason: str = ""
    model: Model | None = None

    @property
    def backend(self) -> str:
        return self.model.backend if self.model else ""

    @property
    def verified(self) -> bool:
        return bool(self.model and self.model.verified)

    @property
    def metrics(self) -> ModelMetrics | None:
        return self.model.metrics if self.model else None

    def queue_depth(self) -> int:
        return self.model.batcher.depth if self.model else 0


class ModelManager:
    """Loads what the repository holds and hands out leases.

    `on_change` is called, from whichever thread made the change, whenever readiness may have changed.
    """

    def __init__(
        self, repository: Repository, placement: Placement, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._repository = repository
        self._placement = placement
        self._on_change = on_change
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Entry]] = {}
        self._loaded = False

    def acquire(self, name: str, version: str = "") -> Lease:
        """A lease on the version asked for, or on the highest that is ready if `version` is empty.

        Raises `UnknownModel`, `UnknownVersion`, `NotReady`, or `InvalidRequest` for a version that is no number.
        """
        number = _parse_version(version)
        with self._lock:
            versions = self._entries.get(name)
            if versions is None:
                raise UnknownModel(f"Request for unknown model: '{name}' is not found")
            if not number:
                ready = [entry.model for entry in versions.values() if entry.state == "READY" and entry.model]
                if not ready:
                    raise UnknownVersion(
                        f"Request for unknown model: '{name}' has no available versions{_because(*versions.values())}"
                    )
                return max(ready, key=lambda model: int(model.version)).lease()
            entry = versions.get(number)
            if entry is None:
                unlisted = [versions[""]] if "" in versions else []
                raise UnknownVersion(
                    f"Request for unknown model: '{name}' version {number} is not found{_because(*unlisted)}"
                )
            if entry.state != "READY" or entry.model is None:
                raise NotReady(
                    f"Request for unknown model: '{name}' version {number} is not at ready state{_because(entry)}"
                )
            return entry.model.lease()

    def ready(self) -> bool:
        """Whether the first load is over and every version that is known can answer."""
        return self._loaded and all(
            entry.state == "READY" and entry.model is not None and entry.model.alive for entry in self.entries()
        )

    def entries(self) -> list[Entry]:
        """Everything known, by name and version."""
        with self._lock:
            known = [entry for versions in self._entries.values() for entry in versions.values()]
        return sorted(known, key=lambda entry: (entry.name, int(entry.version or 0)))

    def load_all(self) -> None:
        """Loads every model of the repository, one after the other; a failure is kept as that model's reason."""
        try:
            for name in self._repository.models():
                self.load(name)
            self._loaded = True
        except OSError as error:
            log.error("the model repository cannot be read: %s", error)
        self._on_change()

    def load(self, name: str) -> None:
        """Loads the versions of a model that its configuration chooses. Failures end up in the entries' reasons."""
        try:
            choices = config.parse(self._repository.config_text(name), name)
            folders = {folder.number: folder for folder in self._repository.versions(name)}
            chosen = choices.versions(list(folders))
        except Exception as error:
            if not isinstance(error, StartupError | OSError):
                log.exception("reading the configuration failed in a way that was not foreseen")
            self._failed(Entry(name=name, version="", state="UNAVAILABLE"), error)
            return
        for number in chosen:
            self._set(Entry(name=name, version=str(number), state="LOADING"))
        for number in chosen:
            entry = Entry(name=name, version=str(number), state="READY")
            try:
                entry.model = loader.load(self._repository, name, folders[number], choices, self._placement)
            except (StartupError, OSError) as error:
                self._failed(entry, error)
            except Exception as error:
                log.exception("loading failed in a way that was not foreseen")
                self._failed(entry, error)
            else:
                entry.reason = "" if entry.verified else "not verified: it has no golden samples"
                self._set(entry)

    def busy(self) -> bool:
        """Whether any request that has found its model is not answered yet."""
        return any(entry.metrics.in_flight for entry in self.entries() if entry.metrics)

    def hurry(self) -> None:
        """No request waits for company any more; called when the server leaves."""
        for entry in self.entries():
            if entry.model:
                entry.model.batcher.hurry()

    def close(self, timeout_seconds: float) -> bool:
        """Stops handing out leases, waits for those that are out, and frees every backend; False if time was too short."""
        until = time.monotonic() + timeout_seconds
        with self._lock:
            entries = [entry for versions in self._entries.values() for entry in versions.values()]
            for entry in entries:
                entry.state = "UNLOADING"
        models = [entry.model for entry in entries if entry.model]
        closed = [model.close(max(0.0, until - time.monotonic())) for model in models]  # each, whatever the others do
        return all(closed)

    def _set(self, entry: Entry) -> None:
        with self._lock:
            self._entries.setdefault(entry.name, {})[entry.version] = entry
        self._on_change()

    def _failed(self, entry: Entry, error: Exception) -> None:
        entry.state = "UNAVAILABLE"
        entry.reason = str(error) or type(error).__name__
        log.error(
            "not loaded: %s", entry.reason, extra={"fields": {"model": entry.name, "version": entry.version or "none"}}
        )
        self._set(entry)


def _because(*entries: Entry) -> str:
    """The states of versions that cannot answer, and the reasons of those that have one."""
    states = [f"{entry.state}{': ' if entry.reason else ''}{entry.reason}" for entry in entries]
    return f" ({'; '.join(states)})" if states else ""


def _parse_version(version: str) -> str:
    """A version as a client may name it: empty, or a whole number. Raises `InvalidRequest` otherwise."""
    if not version:
        return ""
    negative = version.startswith("-")
    digits = version[negative:]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise InvalidRequest(
            f"failed to get model version from specified version string '{version[:40]}', "
            "version should be an integral value > 0"
        )
    if negative:
        raise InvalidRequest(f"invalid model version specified '{version}' , version should be an integral value > 0")
    return str(int(digits))
