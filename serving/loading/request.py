"""What is to be loaded, and what came of it: plain data that the version's entry keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from serving.backends.base import Backend, Candidate
from serving.batching.model import Model
from serving.batching.pending import Pending
from serving.clock import SYSTEM, Clock
from serving.loading.learnt import Learnt
from serving.loading.measurements import Known
from serving.loading.order import Order, ServerDefaults
from serving.repository import state_layouts
from serving.repository.folders import Repository, VersionFolder
from serving.repository.labels import Labels
from serving.repository.operator_config import OperatorConfig
from serving.telemetry.counters import ModelMetrics


@dataclasses.dataclass(frozen=True)
class Tried:
    """What a trial has found: the `level` of optimisation to load at (of the backend's `LEVELS`; empty for its furthest), and
    a `remark` where that is not the furthest."""

    level: str = ""
    remark: str = ""


OnTrial = Callable[["LoadRequest", Candidate], Tried]
OnBroken = Callable[[Model, list[Pending], str, Exception], None]


class FoundTouching(Protocol):
    """Knows of files whose rows were seen to touch each other; see `serving.loading.touching`."""

    def find(self, folder: VersionFolder, candidate: Candidate) -> str: ...

    def keep(self, folder: VersionFolder, candidate: Candidate, sentence: str) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """A version that is to be live: where it lies, what the operator has chosen, and whose counts it goes on with.

    `labels` are the names of classes by output. `metrics` gives the counts of the version in a backend, by the backend's name.
    `failures` in a row make the backend a broken one, and `on_broken(model, requests, reason, error)` is called from a
    worker's thread for requests that it cannot compute; without it they fail. With `wrap` the model serves behind something
    else, each request alone, and what it fails at fails: it is a shadow. `known` has what was measured before, and `learnt` what
    batches took. `trial` says how it is to be loaded, or raises a `StartupError` when it must not be. `found_touching` knows of
    files whose rows were seen to touch each other. `before` is the backend that has computed the sequences which a store holds
    of the version: it goes on with them where it may, since another one's answers differ in their last digits.
    """

    name: str
    folder: VersionFolder
    config: OperatorConfig
    labels: Labels
    defaults: ServerDefaults
    metrics: Callable[[str], ModelMetrics]
    repository: Repository
    on_broken: OnBroken | None = None
    known: Known | None = None
    learnt: Learnt | None = None
    trial: OnTrial | None = None
    found_touching: FoundTouching | None = None
    failures: int = 3
    before: str = ""
    wrap: Callable[[Backend], Backend] | None = None
    clock: Clock = SYSTEM

    def identity(self) -> object:
        """What it is made from: loading something of the same identity changes nothing. Raises `OSError`."""
        written = self.config.written.SerializeToString(deterministic=True)
        initial = tuple(
            (path.name, *_state_of(path)) for path in state_layouts.files(self.config, self.folder.path.parent)
        )
        return self.repository.path, self.folder.fingerprint(), written, tuple(self.labels.items()), initial

    def fields(self) -> dict[str, object]:
        """How the log names it."""
        return {"model": self.name, "version": str(self.folder.number)}


def _state_of(path: Path) -> tuple[int, int]:
    """Bytes of a file and when it was changed; zeros where there is none, which its load tells."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """A live model, what it was made from, and who may take over from it.

    `fell_back` says why it is not the first choice that serves, and is empty if it is; `damaged` names the other backends
    whose files were tried and found wrong, and why; `tried` says what a trial has found, where that is worth a remark.
    """

    model: Model
    request: LoadRequest
    order: Order
    fell_back: str = ""
    damaged: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tried: str = ""

    def standing_in(self, why: str) -> Loaded:
        """This in place of a backend that has broken; an empty `why` says that it is the first choice again."""
        return dataclasses.replace(self, fell_back=why)

    @property
    def remark(self) -> str:
        """What the index says of a version that serves."""
        wrong = "; ".join(f"{backend} cannot serve it: {why}" for backend, why in self.damaged.items())
        remark = self.fell_back or wrong or ("" if self.model.verified else "not verified: it has no golden samples")
        return "; ".join(filter(None, (self.tried, remark)))
