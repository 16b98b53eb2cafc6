"""A request that waits for its answer, and the piece of it that is computed: the plain data of the queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from serving.errors import Cancelled, DeadlineExceeded, ServingError
from serving.sequences.step import Step
from serving.signature.tensors import BatchKey, Tensors
from serving.telemetry.timeline import Timeline

EARLY_NS = 50_000_000  # how long a request may have been on its way


class Requester(Protocol):
    """Who waits for an answer. Called from a worker's thread, or from whichever thread ends the request.

    Each is ended exactly once, by what never raises: `finish` tells it of an error; `finish_all` sends the answers of many
    of this class, which `encode` has made ready; that may raise. Between the two the requests are counted, so that no
    client sees an answer before the statistics do. `move` is called when another model will answer, with a lease on it.
    """

    def encode(self, outputs: Tensors) -> None: ...

    def finish(self, error: ServingError) -> None: ...

    @staticmethod
    def finish_all(requesters: Sequence[Any]) -> None: ...

    def move(self, lease: Any) -> None: ...


class Holder(Protocol):
    """Where a pending request waits. `look_again` is called from any thread when the client of one has gone."""

    def look_again(self) -> None: ...


class Turn(NamedTuple):
    """What a request asks of the queue: a `priority`, 0 for none, and how long it would wait, 0 for as long as it takes."""

    priority: int = 0
    timeout_ns: int = 0


USUAL = Turn()


class Pending:
    """A request that has been checked and waits.

    `inputs` holds the inputs of the signature that were sent, axis 0 being `rows` in each and `steps` the length along its axis
    of steps (1 where the model has none); `outputs` names what is wanted, in the order wanted; only requests of one `key`
    share a batch; `deadline_ns` is on the clock of `timeline.now_ns`. `size` is how many bytes it was sent in. `step` is what it
    says of its sequence, None where no state is kept for it. `rank` and
    `patient_until_ns` belong to the line that it waits in.
    """

    __slots__ = (
        "cancelled", "deadline_ns", "holder", "inputs", "key", "outputs", "patient_until_ns", "rank", "requester", "rows",
        "size", "step", "steps", "timeline", "turn",
    )  # fmt: skip

    def __init__(
        self,
        requester: Requester,
        inputs: Tensors,
        rows: int,
        steps: int,
        outputs: Sequence[str],
        key: BatchKey,
        timeline: Timeline,
        deadline_ns: int | None = None,
        turn: Turn = USUAL,
        size: int = 0,
    ) -> None:
        self.requester = requester
        self.inputs = inputs
        self.rows = rows
        self.steps = steps
        self.outputs = outputs
        self.key = key
        self.timeline = timeline
        self.deadline_ns = deadline_ns
        self.turn = turn
        self.size = size
        self.step: Step | None = None
        self.rank = 0
        self.patient_until_ns: int | None = None
        self.cancelled = False
        self.holder: Holder | None = None

    def cancel(self) -> None:
        """The client has gone. Called from any thread; harmless when the request is being computed already."""
        self.cancelled = True
        if self.holder and not self.timeline.started:
            self.holder.look_again()

    def hopeless(self, now: int) -> ServingError | None:
        """Why nobody waits for the answer any more; None if somebody may.

        A deadline goes before the client's going, since a client whose deadline passes goes too; and by its own clock, which
        was started before the request came here, it goes a little earlier.
        """
        early_ns = EARLY_NS if self.cancelled else 0
        if self.deadline_ns is not None and now >= self.deadline_ns - early_ns:
            waited_ms = (now - self.timeline.decoded) / 1e6
            return DeadlineExceeded(f"Deadline Exceeded: waited {waited_ms:.1f} ms in the queue; nothing was computed")
        return Cancelled("the client has cancelled the request") if self.cancelled else None


class Piece(NamedTuple):
    """So many rows and steps of a request that are computed together with other pieces."""

    pending: Pending
    rows: int
    steps: int


def whole(pending: Pending) -> Piece:
    """All of a request."""
    return Piece(pending, pending.rows, pending.steps)


def finish_all(requesters: Sequence[Requester]) -> None:
    """Sends the answers of a batch that are ready, those of one class at once, in the order given."""
    kinds = dict.fromkeys([type(each) for each in requesters])
    for kind in kinds:
        kind.finish_all(requesters if len(kinds) == 1 else [each for each in requesters if type(each) is kind])
