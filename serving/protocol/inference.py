"""ModelInfer: each step is named here and done elsewhere. Bytes come in, bytes go out; no network here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.batching.model import Copy, Lease, Model
from serving.batching.pending import Pending
from serving.errors import ComputeFailed, InvalidInput, NotReady, ServingError
from serving.lifecycle.manager import ModelManager
from serving.protocol import codec, request
from serving.protocol.answers import Answers
from serving.protocol.call import Call, reply_all
from serving.protocol.checks import Limits
from serving.protocol.codes import CODES, Code, answer_for, as_ours, outcome_of
from serving.protocol.plans import Plans
from serving.signature.tensors import Tensors
from serving.telemetry.counters import SUCCESS
from serving.telemetry.ended import Ended, Recorder
from serving.telemetry.timeline import Timeline, now_ns


class Inference:
    """Answers inference requests through their `Call`, from whichever thread has the answer."""

    def __init__(self, manager: ModelManager, recorder: Recorder, *, max_steps: int) -> None:
        self._manager = manager
        self._recorder = recorder
        self._max_steps = max_steps
        self._refusing = False

    def refuse(self) -> None:
        """From now on requests are refused as soon as they are seen."""
        self._refusing = True

    def infer(self, payload: bytes, call: Call) -> None:
        """Decodes, checks and queues; the answer goes out through `call` when it is there."""
        asked = None
        self._manager.silence.broken()
        try:
            if self._refusing:
                raise NotReady("Server exiting")
            sent = request.message(payload)
            lease = self._manager.acquire(sent.model_name, sent.model_version)
            asked = _Asked(sent.id, lease, call, self._recorder)
            asked.submit(self._plans(lease.model).decode(sent, payload))
        except Exception as error:  # noqa: BLE001 - border: every call is answered
            if asked:
                asked.finish(as_ours(error))
            else:
                code, message = answer_for(error)
                self._recorder.turned_away(code.name)
                call.fail(code, message)

    def infer_all(self, asked: Sequence[tuple[bytes, Call]]) -> None:
        """A burst of requests that have come together; what is wrong with one of them is that one's alone."""
        for payload, call in asked:
            self.infer(payload, call)

    def _plans(self, model: Model) -> Plans:
        plans: Plans | None = model.plans
        if plans is None:
            limits = Limits(
                max_rows=model.max_rows,
                max_steps=self._max_steps,
                text_only=model.text_only,
                finite_only=model.finite_only,
            )
            plans = model.plans = Plans(model.spec, limits)
        return plans


def _answers(model: Model) -> Answers:
    answers: Answers | None = model.answers
    if answers is None:
        answers = model.answers = Answers(model.name, model.version, model.spec, model.labels)
    return answers


class _Asked:
    """One inference request from the lease on its model to the answer on the wire; see `batching.pending.Requester`."""

    __slots__ = ("_call", "_classes", "_copy", "_empty", "_id", "_lease", "_payload", "_recorder", "_timeline")

    def __init__(self, id: str, lease: Lease, call: Call, recorder: Recorder) -> None:
        self._id = id
        self._lease = lease
        self._call = call
        self._recorder = recorder
        self._timeline = Timeline(call.received_ns)
        self._payload = b""
        self._classes: Mapping[str, int] = {}
        self._copy: Copy | None = None
        self._empty = False
        lease.model.metrics.entered()

    def submit(self, decoded: codec.Decoded) -> None:
        """Hands the request to the queue; raises what `Queue.offer` raises."""
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
        )
        self._call.on_cancel(pending.cancel)
        model = self._lease.model
        if follower := self._lease.follower:
            self._copy = follower.offer(model.version, pending)
        model.submit(pending)

    def move(self, lease: Lease) -> None:
        """Another model will answer."""
        self._lease.model.metrics.left()
        lease.model.metrics.entered()
        held, self._lease = self._lease, lease
        held.release()

    def encode(self, outputs: Tensors) -> None:
        """Makes the answer's bytes ready."""
        model = self._lease.model
        if self._copy:
            self._copy.answered(outputs)
        self._payload = _answers(model).encode(self._id, outputs, self._classes)
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
        self._call.fail(code, message)

    @staticmethod
    def finish_all(requesters: Sequence[_Asked]) -> None:
        """Tells that requests were answered, gives their leases back, and sends the answers."""
        for asked in requesters:
            if asked._recorder.tells_of_answers:
                asked._record(SUCCESS, Code.OK, "")
        Lease.release_all([asked._lease for asked in requesters])
        reply_all([(asked._call, asked._payload) for asked in requesters])

    def _record(self, outcome: str, code: Code, message: str) -> None:
        model = self._lease.model
        ended = Ended(model.name, model.version, self._id, outcome, code.name, message, self._timeline, now_ns())
        self._recorder.ended(ended, model.metrics)
