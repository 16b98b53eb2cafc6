"""ModelInfer: each step is named here and done elsewhere. Bytes come in, bytes go out; no network here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from protos import grpc_service_pb2 as pb
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
from serving.protocol.templates import Head, head_of
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

    def infer_all(self, burst: Sequence[tuple[bytes, Call]]) -> None:
        """Decodes, checks and queues requests that have come together; each answer goes out through its call when it is there.

        What is wrong with one of them is that one's alone.
        """
        self._manager.silence.broken()
        queued: _Queued = {}
        for model, same in itertools.groupby(self._begun(burst), _model_of):
            self._ask(model, list(same), queued)
        for leased, requests in queued.items():
            for pending, why in leased.submit_all(requests):
                pending.requester.finish(why)

    def _begun(self, burst: Sequence[tuple[bytes, Call]]) -> Iterator[_Sent]:
        """What the requests say of themselves; those that are none are turned away."""
        for payload, call in burst:
            try:
                if self._refusing:
                    raise NotReady("Server exiting")
                head = head_of(payload)
                yield _Sent(payload, call, head, None if head else request.message(payload))
            except ServingError as error:
                self._turn_away(call, error)

    def _ask(self, model: tuple[str, str], alike: Sequence[_Sent], queued: _Queued) -> None:
        """Adds requests that name the same model and version to what is to be queued."""
        try:
            leases = self._manager.acquire_all(*model, len(alike))
        except Exception as error:  # noqa: BLE001 - border: every call is answered
            for sent in alike:  # which may be wrong in something else, and that is told first
                if self._message(sent, queued) is not None:
                    self._turn_away(sent.call, error)
            return
        for lease, sent in zip(leases, alike, strict=True):
            if (pending := self._pending(sent, lease, queued)) is not None:
                queued.setdefault(lease.model, []).append(pending)

    def _pending(self, sent: _Sent, lease: Lease, queued: _Queued) -> Pending | None:
        """What waits in the queue; None where the lease was given back and the call was answered, or asks another model."""
        asked, head = None, sent.head
        try:
            plans = self._plans(lease.model)
            template = plans.templates.find(sent.payload, head.end) if head else None
            if head and template:
                asked = _Asked(head.id, lease, sent.call, self._recorder)
                if (alike := template.decode(sent.payload, head.end)) is not None:
                    return asked.pending(alike)
                lease.model.metrics.left()  # it only looked like it
                asked = None
            message = self._message(sent, queued)
            if message is None:
                lease.release()
                return None
            asked = _Asked(message.id, lease, sent.call, self._recorder)
            return asked.pending(plans.decode(message, sent.payload))
        except Exception as error:  # noqa: BLE001 - border: every call is answered
            if asked:
                asked.finish(as_ours(error))
            else:
                lease.release()
                self._turn_away(sent.call, error)
            return None

    def _message(self, sent: _Sent, queued: _Queued) -> pb.ModelInferRequest | None:
        """The message, if it names the model that its beginning names; else the request is answered, or asks that other one."""
        if sent.message is not None:
            return sent.message
        try:
            message = request.message(sent.payload)
        except ServingError as error:
            self._turn_away(sent.call, error)
            return None
        parsed = _Sent(sent.payload, sent.call, None, message)
        if _model_of(parsed) == _model_of(sent):
            return message
        self._ask(_model_of(parsed), [parsed], queued)
        return None

    def _turn_away(self, call: Call, error: Exception) -> None:
        code, message = answer_for(error)
        self._recorder.turned_away(code.name)
        call.fail(code, message)

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


_Queued = dict[Model, list[Pending]]


class _Sent(NamedTuple):
    """A request: how it begins, or its message where that cannot be told from its bytes."""

    payload: bytes
    call: Call
    head: Head | None
    message: pb.ModelInferRequest | None


def _model_of(sent: _Sent) -> tuple[str, str]:
    named = sent.head or sent.message
    assert named
    return named.model_name, named.model_version


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

    def pending(self, decoded: codec.Decoded) -> Pending:
        """What waits in the queue."""
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
        return pending

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
