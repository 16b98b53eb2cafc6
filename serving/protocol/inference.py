"""ModelInfer: each step is named here and done elsewhere. Bytes come in, bytes go out; no network here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from protos import grpc_service_pb2 as pb
from serving.batching.in_lane import Entering
from serving.batching.lanes import Lanes
from serving.batching.model import Lease, Model
from serving.batching.pending import USUAL, Pending, Turn
from serving.errors import NotReady
from serving.lifecycle.manager import ModelManager
from serving.protocol import checks, request, sequence_parameters, steps
from serving.protocol.asked import Asked
from serving.protocol.call import Call
from serving.protocol.checks import Limits
from serving.protocol.codec import Decoded
from serving.protocol.codes import answer_for, as_ours
from serving.protocol.plans import Plans
from serving.protocol.templates import Head, head_of
from serving.protocol.wire_parameters import parameters_at
from serving.sequences.step import Key, Step
from serving.telemetry.ended import Recorder


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
        self._infer_all(self._sent(burst))

    def _infer_all(self, burst: Iterable[_Sent]) -> None:
        queued: dict[Model, list[Pending]] = {}
        misread: list[_Sent] = []
        for (name, version), same in itertools.groupby(burst, _model_of):
            alike = list(same)
            if lanes := self._manager.lanes(name):
                self._step_all(lanes, name, version, alike, queued, misread)
                continue
            alike = [sent for sent in alike if not sent[4].gone]  # whose client waits for nothing
            try:
                leases = self._manager.acquire_all(name, version, len(alike))
            except Exception as error:  # noqa: BLE001 - border: every call is answered
                for sent in alike:
                    self._not_found(sent, error, misread)
                continue
            tight = self._tight({lease.model for lease in leases}, alike, queued)
            for lease, sent in zip(leases, alike, strict=True):
                if tight and self._no_room(lease, sent, queued.get(lease.model, ())):
                    continue
                pending = self._pending(lease, sent, misread)
                if pending:
                    queued.setdefault(lease.model, []).append(pending)
        for model, requests in queued.items():
            for pending, why in model.submit_all(requests):
                pending.requester.finish(why)
        if misread:
            self._infer_all(misread)

    def _step_all(
        self,
        lanes: Lanes,
        name: str,
        version: str,
        alike: Sequence[_Sent],
        queued: dict[Model, list[Pending]],
        misread: list[_Sent],
    ) -> None:
        """Of a model with a stateful version: each step goes into the lane of its sequence, in the order of arrival."""
        entering: dict[Key, Entering] = {}
        for sent in alike:
            asked = _read(sent) or self._parsed(sent, misread)
            if asked is None:
                continue
            parameters, _ = asked
            step = None
            try:
                said = sequence_parameters.said(parameters, name)
                step = said.step(sent[4].caller, sent[4].on_stream) if said.id else None
                if step and step.key in entering:  # where that one goes this one goes
                    lanes.enter_all(list(entering.values()))
                    entering = {}
                lease = self._manager.acquire_step(name, version, step)
            except Exception as error:  # noqa: BLE001 - border: every call is answered
                if id := step.key[1] if step else sequence_parameters.id_of(parameters):
                    lanes.enter_all(list(entering.values()))  # what came before it is before it
                    entering = {}
                    lanes.broken_off((sent[4].caller, id), sent[4].on_stream)
                self._turn_away(sent[4], error)
                continue
            pending = self._step(lease, sent, asked, step, lanes, misread)
            if pending and pending.step:
                entering[pending.step.key] = Entering(pending, pending.step, lease.model)
            elif pending:
                queued.setdefault(lease.model, []).append(pending)
        lanes.enter_all(list(entering.values()))

    def _parsed(self, sent: _Sent, misread: list[_Sent]) -> _WithParameters | None:
        message = sent[2] or self._message(sent, misread)
        return None if message is None else (request.parameters_of(message), message)

    def _step(
        self, lease: Lease, sent: _Sent, read: _WithParameters, step: Step | None, lanes: Lanes, misread: list[_Sent]
    ) -> Pending | None:
        """What is to go into its lane, if it is a step of a sequence, else into the queue; None if it was refused."""
        model, call, id = lease.model, sent[4], step.key[1] if step else ""
        asked: Asked | None = None
        try:
            if found := self._like_another(model, sent, read):
                head, decoded = found
                asked = Asked(head.id, lease, call, self._recorder, id)
            else:
                parsed = read if isinstance(read[1], pb.ModelInferRequest) else self._parsed(sent, misread)
                if parsed is None:
                    lease.release()
                    return None
                parameters, message = parsed
                assert isinstance(message, pb.ModelInferRequest)
                asked = Asked(message.id, lease, call, self._recorder, id)
                decoded = self._plans(model).decode(message, sent[3], parameters)
            if model.sequences is not None:
                _check_step(model, step, decoded)
            pending = asked.pending(decoded, len(sent[3]))
            pending.step = step if model.sequences is not None else None
        except Exception as error:  # noqa: BLE001 - border: every call is answered
            if step:
                lanes.broken_off(step.key, step.stream)
            if asked:
                asked.finish(as_ours(error))
            else:
                lease.release()
                self._turn_away(call, error)
            return None
        return pending

    def _like_another(self, model: Model, sent: _Sent, read: _WithParameters) -> tuple[Head, Decoded] | None:
        """A request that need not be parsed: what comes behind its parameters, as mostly, is like that of another one."""
        (_, head, _, payload, _), (parameters, end) = sent, read
        if head is None or not isinstance(end, int) or model.sequences is None:
            return None
        template = self._plans(model).templates.find(payload, end)
        return (head, template.decode(payload, end, _turn(parameters, model))) if template else None

    def _tight(
        self, models: Iterable[Model], alike: Sequence[_Sent], queued: Mapping[Model, Sequence[Pending]]
    ) -> bool:
        """Whether there may not be room for all of them."""
        size = sum([len(sent[3]) for sent in alike])
        return any(model.full(len(queued.get(model, ())) + len(alike) - 1, size) for model in models)

    def _no_room(self, lease: Lease, sent: _Sent, ahead: Sequence[Pending]) -> bool:
        """Whether a request, of which no more than the head was read, is turned away: the queue is full."""
        _, head, message, payload, call = sent
        why = lease.model.full(len(ahead), sum([pending.size for pending in ahead]) + len(payload))
        if why is None:
            return False
        id = head.id if head else message.id if message else ""
        Asked(id, lease, call, self._recorder).finish(why)
        return True

    def _pending(self, lease: Lease, sent: _Sent, misread: list[_Sent]) -> Pending | None:
        """What is to be queued of a request, if it is right. One that names another model after all goes to `misread`."""
        _, head, message, payload, call = sent
        asked = None
        try:
            plans = self._plans(lease.model)
            if head and (template := plans.templates.find(payload, head.end)):
                asked = Asked(head.id, lease, call, self._recorder)
                return asked.pending(template.decode(payload, head.end), len(payload))
            message = message or self._message(sent, misread)
            if message is None:
                lease.release()
                return None
            asked = Asked(message.id, lease, call, self._recorder)
            return asked.pending(plans.decode(message, payload), len(payload))
        except Exception as error:  # noqa: BLE001 - border: every call is answered
            if asked:
                asked.finish(as_ours(error))
            else:
                lease.release()
                self._turn_away(call, error)
            return None

    def _message(self, sent: _Sent, misread: list[_Sent]) -> pb.ModelInferRequest | None:
        """The message of a request of which the head was read; None when it is none, or not what its head seems to say."""
        _, head, _, payload, call = sent
        try:
            message = request.message(payload)
        except Exception as error:  # noqa: BLE001 - border: every call is answered
            self._turn_away(call, error)
            return None
        if head and (message.model_name, message.model_version, message.id) != head[:3]:
            misread.append(((message.model_name, message.model_version), None, message, payload, call))
            return None
        return message

    def _not_found(self, sent: _Sent, error: Exception, misread: list[_Sent]) -> None:
        """There is no such model; but the request may be wrong in something that is to be told first."""
        if sent[2] or self._message(sent, misread):
            self._turn_away(sent[-1], error)

    def _sent(self, burst: Sequence[tuple[bytes, Call]]) -> Iterator[_Sent]:
        """Of each request which model it names; what is no request is turned away."""
        for payload, call in burst:
            try:
                if self._refusing:
                    raise NotReady("Server exiting")
                if head := head_of(payload):
                    yield head[:2], head, None, payload, call
                else:
                    message = request.message(payload)
                    yield (message.model_name, message.model_version), None, message, payload, call
            except Exception as error:  # noqa: BLE001 - border: every call is answered
                self._turn_away(call, error)

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
                stateful=model.sequences is not None,
            )
            plans = model.plans = Plans(model.spec, limits)
        return plans


# The model and version that it seems to name; its head, or its message where it has none; its bytes, and who is answered.
_Sent = tuple[tuple[str, str], Head | None, pb.ModelInferRequest | None, bytes, Call]


# The parameters of a request, and where what comes behind them begins, or all of it as a message.
_WithParameters = tuple[Mapping[str, request.Parameter], int | pb.ModelInferRequest]


def _read(sent: _Sent) -> _WithParameters | None:
    """The parameters of a request that need not be parsed for them."""
    _, head, message, payload, _ = sent
    return parameters_at(payload, head.end) if head and message is None else None


def _turn(parameters: Mapping[str, request.Parameter], model: Model) -> Turn:
    if parameters.keys() <= sequence_parameters.KINDS.keys():  # of which all is known
        return USUAL
    return checks.parameters(parameters, model.spec, model.name, stateful=True)


def _model_of(sent: _Sent) -> tuple[str, str]:
    return sent[0]


def _check_step(model: Model, step: Step | None, decoded: Decoded) -> None:
    if step is None:
        steps.check_alone(model.spec, decoded, model.name)
        return
    steps.check_step(step, model.spec, decoded, model.name)
    if step.number is not None:
        step.digest = steps.digest_of(decoded, step)
