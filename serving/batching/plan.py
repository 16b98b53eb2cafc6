"""Which of the waiting requests are computed together: a pure decision over plain data.

Requests of another shape do not end a batch, they are passed over and stay first in line for the next one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from serving.errors import Cancelled, DeadlineExceeded, ServingError
from serving.signature.spec import Tensors
from serving.telemetry.timeline import Timeline

BatchKey = tuple[bytes | tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """What may share a batch, and how long to wait for company.

    `max_rows` bounds a batch; `max_delay_ns` is how long the first in line waits for it to fill; with `preferred_rows`
    a batch of exactly such a size goes at once and others wait the delay out. `max_queue` bounds the waiting requests.
    Without `dynamic` every request is computed alone.
    """

    max_rows: int = 64
    max_delay_ns: int = 0
    preferred_rows: tuple[int, ...] = ()
    max_queue: int = 1024
    dynamic: bool = True


class Pending:
    """A request that waits for its answer.

    `inputs` holds every input of the spec, axis 0 being `rows` in each; `outputs` names what is wanted, in the order
    wanted; `deadline_ns` is on the clock of `timeline.now_ns`; requests of another `kind` never share a batch. The worker
    thread calls `encode(outputs)` to make the answer ready and then, exactly once, `finish(None)` to send it or
    `finish(error)`; `finish` never raises. Between the two it counts, so that no client sees an answer before the
    statistics do. `move(lease)` is called when another model will answer: what counts on the lease goes over to that one.
    """

    __slots__ = (
        "batch_key", "cancelled", "deadline_ns", "encode", "finish", "inputs", "move", "outputs", "rows", "timeline",
    )  # fmt: skip

    def __init__(
        self,
        inputs: Tensors,
        rows: int,
        outputs: Sequence[str],
        timeline: Timeline,
        encode: Callable[[Tensors], None],
        finish: Callable[[ServingError | None], None],
        deadline_ns: int | None = None,
        kind: bytes = b"",
        move: Callable[[Any], None] = lambda lease: None,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        self.timeline = timeline
        self.encode = encode
        self.finish = finish
        self.deadline_ns = deadline_ns
        self.cancelled = False
        self.move = move
        self.batch_key: BatchKey = (kind, *(array.shape[1:] for array in inputs.values()))

    def hopeless(self, now: int) -> ServingError | None:
        """Why nobody waits for the answer any more; None if somebody may.

        A deadline goes before the client's going, since a client whose deadline passes goes too.
        """
        if self.deadline_ns is not None and now >= self.deadline_ns:
            waited_ms = (now - self.timeline.decoded) / 1e6
            return DeadlineExceeded(f"Deadline Exceeded: waited {waited_ms:.1f} ms in the queue; nothing was computed")
        return Cancelled("the client has cancelled the request") if self.cancelled else None


@dataclasses.dataclass(frozen=True)
class Take:
    """Compute these, given by their places in the queue (rising)."""

    places: list[int]


@dataclasses.dataclass(frozen=True)
class Wait:
    """Nothing to do until this time (ns), or until a request arrives if it is None."""

    until_ns: int | None


def plan(waiting: Sequence[Pending], policy: BatchPolicy, now: int) -> Take | Wait:
    """What to do with the queue now. Pure: looks at rows, shapes and arrival, touches nothing.

    The first in line is always part of the batch, so nobody starves. Those of its shape join in order of arrival as
    long as the rows fit.
    """
    if not waiting:
        return Wait(None)
    first = waiting[0]
    if not policy.dynamic:
        return Take([0])
    places: list[int] = []
    rows, preferred, full = 0, 0, False
    for place, pending in enumerate(waiting):
        if pending.batch_key != first.batch_key:
            continue
        if rows + pending.rows > policy.max_rows and places:
            full = True
            break
        places.append(place)
        rows += pending.rows
        if rows in policy.preferred_rows:
            preferred = len(places)
        if rows >= policy.max_rows:
            full = True
            break
    if preferred:
        return Take(places[:preferred])
    until = first.timeline.decoded + policy.max_delay_ns
    if full or now >= until:
        return Take(places)
    return Wait(until)
