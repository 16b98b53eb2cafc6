"""A step on its way, and what is to be done with steps when the lock of their lanes is free."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

from serving.batching.pending import Pending, Requester
from serving.errors import NotReady, Overloaded, ServingError
from serving.sequences import counts as why
from serving.sequences import records
from serving.sequences.live import Repeat, Sequences
from serving.sequences.memory import Ended
from serving.sequences.step import Step
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics

log = logging.getLogger(__name__)

BY_ITS_CLIENT = (why.END, why.RESTARTED)
TOLD_ALONE = 8  # of those that end together


class StepQueue(Protocol):
    """The model that a step is to be computed by, as lanes see it."""

    metrics: ModelMetrics
    sequences: Sequences | None

    def submit_all(self, requests: Sequence[Pending]) -> list[tuple[Pending, ServingError]]: ...

    def full(self, ahead: int, size: int) -> Overloaded | None: ...


class Entering(NamedTuple):
    """A step, and the model that it is to be computed by, which keeps the state of its sequence."""

    pending: Pending
    step: Step
    model: StepQueue


class Asking(Requester, Protocol):
    """Who asks for a step: it is told the epoch of the sequence before its answer is made ready."""

    def in_epoch(self, epoch: int) -> None: ...


class Owner(Protocol):
    """The lanes, as a step on its way sees them."""

    def failed(self, entry: InLane, error: ServingError) -> None: ...

    def computed(self, entries: Sequence[InLane]) -> None: ...


class InLane:
    """A step on its way, between whoever computes and whoever asks; see `batching.pending.Requester`."""

    __slots__ = ("_lanes", "going", "home", "lost", "model", "pending", "requester", "step", "until_ns")

    def __init__(self, lanes: Owner, pending: Pending, step: Step, home: Sequences, model: StepQueue) -> None:
        self._lanes = lanes
        self.pending = pending
        self.requester = cast(Asking, pending.requester)
        self.step = step
        self.home = home
        self.model = model
        self.until_ns: int | None = None  # how long it waits in a full house
        self.going = False  # it has begun, and goes to be computed or is
        self.lost: ServingError | None = None  # why what it is computed on is not so any more

    def out_of_lane(self) -> Asking:
        """Who has asked; the request leads back here no more, which would keep both until somebody collects garbage."""
        self.pending.requester = self.requester
        return self.requester

    def encode(self, outputs: Tensors) -> None:
        self.requester.in_epoch(self.step.epoch)
        self.requester.encode(outputs)
        if self.step.number is not None and self.home.policy.window:  # which is kept, and not all of its batch with it
            self.step.outputs = records.pack_outputs(outputs)

    def finish(self, error: ServingError) -> None:
        self._lanes.failed(self, error)

    @staticmethod
    def finish_all(requesters: Sequence[InLane]) -> None:
        requesters[0]._lanes.computed(requesters)

    def move(self, lease: Any) -> None:
        if lease.model.sequences is not self.home:
            raise NotReady(f"{self.home.title} was loaded anew, and the state of the sequence was not carried over")
        self.requester.move(lease)
        self.model = lease.model


class Hole:
    """In the place of a step that was refused before it came here, on this `stream`, 0 where it came alone."""

    def __init__(self, stream: int) -> None:
        self.stream = stream


class Work:
    """What is to be done when the lock is free."""

    def __init__(self) -> None:
        self.refused: list[tuple[InLane, ServingError]] = []
        self.repeated: list[tuple[InLane, Repeat]] = []
        self.going: list[InLane] = []
        self.told: list[Ended] = []

    def __bool__(self) -> bool:
        return bool(self.refused or self.repeated or self.going or self.told)


def tell(model: str, ended: Sequence[Ended]) -> None:
    """A line for each, or one for many; what its client has asked for is told at the level of debugging."""
    if log.isEnabledFor(logging.DEBUG):
        for each in ended:
            if each.gone.reason in BY_ITS_CLIENT:
                log.debug("a sequence has ended", extra={"fields": _fields(model, each)})
    ended = [each for each in ended if each.gone.reason not in BY_ITS_CLIENT]
    for each in ended[:TOLD_ALONE]:
        log.info("a sequence has ended", extra={"fields": _fields(model, each)})
    if more := ended[TOLD_ALONE:]:
        fields = {"model": model, "version": more[0].gone.version, "reason": more[0].gone.reason}
        log.info("%d more sequences have ended", len(more), extra={"fields": fields})


def _fields(model: str, ended: Ended) -> dict[str, object]:
    (caller, id), gone = ended
    fields: dict[str, object] = {"model": model, "version": gone.version, "sequence": id, "reason": gone.reason}
    fields |= {"epoch": gone.epoch, "steps": gone.taken}
    return fields | ({"caller": caller} if caller else {})
