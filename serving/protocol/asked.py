"""One inference request from the lease on its model to the answer on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.batching.following import Copy
from serving.batching.model import Lease, Model
from serving.batching.pending import Pending
from serving.errors import ComputeFailed, InvalidInput, Overloaded, ServingError
from serving.protocol import codec
from serving.protocol.answers import Answers
from serving.protocol.call import Call, reply_all
from serving.protocol.codes import CODES, Code, outcome_of
from serving.signature.tensors import Tensors
from serving.telemetry.counters import SUCCESS
from serving.telemetry.ended import Ended, Recorder
from serving.telemetry.timeline import Timeline, now_ns


class Asked:
    """See the module; a `batching.pending.Requester`."""

    __slots__ = (
        "_call", "_classes", "_copy", "_empty", "_epoch", "_id", "_lease", "_payload", "_recorder", "_sequence", "_timeline",
    )  # fmt: skip

    def __init__(self, id: str, lease: Lease, call: Call, recorder: Recorder, sequence: int | str = "") -> None:
        self._id = id
        self._lease = lease
        self._call = call
        self._recorder = recorder
        self._timeline = Timeline(call.received_ns)
        self._payload = b""
        self._classes: Mapping[str, int] = {}
        self._copy: Copy | None = None
        self._empty = False
        self._epoch = 0
        self._sequence = sequence
        lease.model.metrics.entered()

    def pending(self, decoded: codec.Decoded, size: int) -> Pending:
        """What waits in the queue; it was sent in so many bytes."""
        self._timeline.decoded = now_ns()
        self._classes = decoded.classes
        if self._lease.model.spec.may_be_empty:
            self._empty = not all(array.size for array in decoded.inputs.values())
        pending = Pending(
            self,
            decoded.inputs,
            decoded.rows,
            decoded.steps,
            decoded.outputs,
            decoded.key,
            self._timeline,
            self._call.deadline_ns,
            decoded.turn,
            size,
        )
        self._call.on_cancel(pending.cancel)
        model = self._lease.model
        if follower := self._lease.follower:
            self._copy = follower.offer(model.version, pending)
        return pending

    def move(self, lease: Lease) -> None:
        """Another model will answer."""
        self._lease.model.metrics.left()
        lease.model.metrics.entered()
        held, self._lease = self._lease, lease
        held.release()

    def in_epoch(self, epoch: int) -> None:
        """It is a step of a sequence, whose epoch the answer tells."""
        self._epoch = epoch

    def encode(self, outputs: Tensors) -> None:
        """Makes the answer's bytes ready."""
        model = self._lease.model
        if self._copy:
            self._copy.answered(outputs)
        self._payload = _answers(model).encode(self._id, outputs, self._classes, self._epoch)
        self._timeline.encoded = now_ns()

    def finish(self, error: ServingError) -> None:
        """Tells that the request has failed, gives the lease back, and sends the error."""
        if self._empty and isinstance(error, ComputeFailed):
            error = InvalidInput(f"{error}; an input is empty, which the model does not take")
        code, message = CODES[type(error)], str(error)
        if self._copy:
            self._copy.give_up()
        self._record(outcome_of(error), code, message)
        self._lease.release()
        self._call.fail(code, message, error.retry_ms if isinstance(error, Overloaded) else 0)

    @staticmethod
    def finish_all(requesters: Sequence[Asked]) -> None:
        """Tells that requests were answered, gives their leases back, and sends the answers."""
        for asked in requesters:
            if asked._recorder.tells_of_answers:
                asked._record(SUCCESS, Code.OK, "")
        Lease.release_all([asked._lease for asked in requesters])
        reply_all([(asked._call, asked._payload) for asked in requesters])

    def _record(self, outcome: str, code: Code, message: str) -> None:
        model = self._lease.model
        ended = Ended(
            model.name, model.version, self._id, outcome, code.name, message, self._timeline, now_ns(), self._sequence
        )
        self._recorder.ended(ended, model.metrics)


def _answers(model: Model) -> Answers:
    answers: Answers | None = model.answers
    if answers is None:
        answers = model.answers = Answers(model.name, model.version, model.spec, model.labels)
    return answers
