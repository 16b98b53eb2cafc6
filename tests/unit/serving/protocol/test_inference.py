"""One inference from its bytes to its one answer: who is asked, who is told, and in which order."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from protos import grpc_service_pb2 as pb
from serving.batching.model import Lease
from serving.batching.pending import Pending, Turn
from serving.errors import ComputeFailed, NotReady, Overloaded, ServingError, TimedOut, UnknownModel
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.silence import Silence
from serving.loading.order import ServerDefaults
from serving.protocol.codes import REFUSALS, Code
from serving.protocol.inference import Inference
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.ended import Ended, Recorder
from serving.telemetry.timeline import now_ns
from tests.support import fake_models
from tests.support.loading import request_of
from tests.support.managed import let_in, managing
from tests.support.wire import request

Y = {"y": np.array([[1, 2]], np.float32)}
INVALID = request("m", 1.0, 2)
INVALID.inputs[0].datatype = "INT64"


class Caller:
    """A call that keeps what it was told; `telling` is asked to note it."""

    def __init__(self, telling: Callable[[str], None] = lambda what: None, deadline_ns: int | None = None) -> None:
        self.received_ns = now_ns()
        self.deadline_ns = deadline_ns
        self.caller = ""
        self.on_stream = 0
        self.gone = False
        self.on_gone: list[Callable[[], None]] = []
        self._telling = telling
        self._answers: queue.SimpleQueue[bytes | tuple[Code, str]] = queue.SimpleQueue()
        self.retry_ms = -1

    def reply(self, payload: bytes) -> None:
        self._telling("replied")
        self._answers.put(payload)

    @staticmethod
    def reply_all(answers: Sequence[tuple[Caller, bytes]]) -> None:
        for caller, payload in answers:
            caller.reply(payload)

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        self._telling("failed")
        self.retry_ms = retry_ms
        self._answers.put((code, message))

    def on_cancel(self, action: Callable[[], None]) -> None:
        self.on_gone.append(action)

    @property
    def waits(self) -> bool:
        """Whether nothing was answered that has not been fetched."""
        return self._answers.empty()

    def answer(self) -> pb.ModelInferResponse:
        """The answer, waited for, which must be the only one."""
        payload = self._answers.get(timeout=20)
        assert isinstance(payload, bytes), payload
        assert self.waits
        return pb.ModelInferResponse.FromString(payload)

    def refusal(self) -> tuple[Code, str]:
        """The code and the message, which must be the only ones."""
        told = self._answers.get(timeout=20)
        assert isinstance(told, tuple), told
        assert self.waits
        return told


class StubModel:
    """As much of a model as an inference sees; its queue keeps requests, or is full."""

    name, max_rows, text_only, finite_only, sequences = "m", 8, False, False, None
    labels: ClassVar[Mapping[str, Sequence[str]]] = {}
    plans = answers = None

    def __init__(
        self, version: str = "2", full: ServingError | None = None, room: tuple[int, int] | None = None
    ) -> None:
        self.version = version
        self.spec = fake_models.spec()
        self.metrics = ModelMetrics()
        self.submitted: list[Pending] = []
        self.bursts: list[int] = []
        self.told_of: Callable[[str], None] = lambda what: None
        self._full = full
        self._room = room or (1000, 1 << 30)

    def full(self, ahead: int, size: int) -> Overloaded | None:
        requests, most_bytes = self._room
        return Overloaded("no room", 250) if ahead >= requests or size > most_bytes else None

    def release(self, leases: int = 1) -> None:
        self.told_of("released" if leases == 1 else f"released {leases}")

    def submit_all(self, requests: Sequence[Pending]) -> list[tuple[Pending, ServingError]]:
        if self._full:
            return [(pending, self._full) for pending in requests]
        self.submitted += requests
        self.bursts.append(len(requests))
        return []


class Following:
    """A follower that copies every request, and the copy."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def offer(self, version: str, pending: Pending) -> Following:
        self.told.append(("offered", version, pending.rows))
        return self

    def answered(self, outputs: Tensors) -> None:
        self.told.append(("answered", sorted(outputs)))

    def give_up(self) -> None:
        self.told.append("given up")


class Stage:
    """An inference between a manager and a recorder, both of which this is; `told` is what happened, in order."""

    def __init__(
        self,
        model: StubModel | None = None,
        refusal: Exception | None = None,
        follower: Following | None = None,
        *,
        tells_of_answers: bool = True,
    ) -> None:
        self.model = model or StubModel()
        self.told: list[str] = []
        self.tells_of_answers = tells_of_answers
        self.recorded: list[Ended] = []
        self.refused: list[str] = []
        self.caller = Caller(self.told.append)
        self._refusal = refusal
        self._follower = follower
        self.silence = Silence()
        self.inference = Inference(cast(ModelManager, self), cast(Recorder, self), max_steps=10)

    def lanes(self, _name: str) -> None:
        """No version of it keeps state."""

    def acquire_all(self, name: str, version: str, count: int) -> list[Lease]:
        self.told.append(f"acquired {name}/{version or 'any'}")
        if self._refusal:
            raise self._refusal
        return [self.lease(self.model) for _ in range(count)]

    def lease(self, model: StubModel) -> Lease:
        whose = "" if model is self.model else " the other"
        model.told_of = lambda what: self.told.append(what + whose)
        return Lease(cast(Any, model), cast(Any, self._follower))

    def ended(self, ended: Ended, metrics: ModelMetrics) -> None:
        assert metrics is self.model.metrics
        self.told.append("recorded")
        self.recorded.append(ended)

    def turned_away(self, code: str) -> None:
        self.refused.append(code)

    def ask(self, asked: pb.ModelInferRequest | bytes | None = None) -> None:
        asked = request("m", 1.0, 2) if asked is None else asked
        payload = asked if isinstance(asked, bytes) else asked.SerializeToString()
        self.inference.infer_all([(payload, self.caller)])

    def pending(self) -> Pending:
        (pending,) = self.model.submitted
        return pending


def test_an_answer_is_recorded_and_its_lease_released_before_it_is_sent() -> None:
    stage, asked = Stage(), request("m", 1.0, 2)
    asked.id = "7"
    stage.ask(asked)
    assert stage.caller.waits
    pending = stage.pending()
    assert stage.model.metrics.in_flight == 1
    pending.requester.encode(Y)
    assert stage.caller.waits, "it is counted first"
    pending.requester.finish_all([pending.requester])
    assert stage.told == ["acquired m/any", "recorded", "released", "replied"]
    answer = stage.caller.answer()
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "2", "7")
    assert answer.raw_output_contents == [Y["y"].tobytes()]
    (ended,) = stage.recorded
    assert (ended.model, ended.version, ended.request_id) == ("m", "2", "7")
    assert (ended.outcome, ended.code, ended.message) == ("success", "OK", "")
    assert ended.timeline.received == stage.caller.received_ns
    assert ended.timeline.received <= ended.timeline.decoded <= ended.timeline.encoded <= ended.at_ns


def test_where_answers_are_not_logged_only_errors_are_recorded() -> None:
    stage = Stage(tells_of_answers=False)
    stage.ask()
    stage.pending().requester.encode(Y)
    stage.pending().requester.finish_all([stage.pending().requester])
    assert stage.told == ["acquired m/any", "released", "replied"]
    stage.ask()
    stage.model.submitted[-1].requester.finish(ComputeFailed("it broke"))
    assert stage.told[3:] == ["acquired m/any", "recorded", "released", "failed"]


def test_answers_of_a_batch_leave_together_when_all_are_recorded_and_their_leases_given_back() -> None:
    stage = Stage()
    for _ in range(3):
        stage.ask()
    requesters = [pending.requester for pending in stage.model.submitted]
    for requester in requesters:
        requester.encode(Y)
    requesters[0].finish_all(requesters)
    assert stage.told[3:] == [*["recorded"] * 3, "released 3", *["replied"] * 3]


def test_what_is_queued_is_what_was_asked() -> None:
    stage, asked = Stage(), request("m", 1.5, 2)
    asked.model_version = "stable"
    asked.outputs.add(name="hn")
    asked.outputs.add(name="y")
    stage.caller.deadline_ns = 12
    stage.ask(asked)
    pending = stage.pending()
    assert (pending.rows, pending.steps, list(pending.outputs), pending.deadline_ns) == (1, 2, ["hn", "y"], 12)
    assert pending.inputs["x"].tolist() == [[[1.5] * 3] * 2]
    assert stage.told == ["acquired m/stable"]


def test_a_client_that_goes_cancels_what_is_queued() -> None:
    stage = Stage()
    stage.ask()
    assert not stage.pending().cancelled
    (gone,) = stage.caller.on_gone
    gone()
    assert stage.pending().cancelled


@pytest.mark.parametrize(
    ("model", "asked", "outcome", "code", "said"),
    [
        (StubModel(), INVALID, "invalid", Code.INVALID_ARGUMENT, "data-type is 'INT64'"),
        (StubModel(), request("m", 1.0, 11), "invalid", Code.INVALID_ARGUMENT, "at most 10 are allowed"),
        (StubModel(full=Overloaded("full")), request("m", 1.0, 2), "rejected", Code.UNAVAILABLE, "full"),
    ],
)
def test_what_a_model_was_found_for_fails_in_the_same_order(
    model: StubModel, asked: pb.ModelInferRequest, outcome: str, code: Code, said: str
) -> None:
    stage = Stage(model)
    stage.ask(asked)
    assert stage.told == ["acquired m/any", "recorded", "released", "failed"]
    told = stage.caller.refusal()
    assert told[0] is code
    assert said in told[1]
    (ended,) = stage.recorded
    assert (ended.outcome, ended.code, ended.message) == (outcome, code.name, told[1])
    assert stage.refused == []


def test_what_fails_while_it_is_computed_is_told_to_the_client() -> None:
    stage = Stage()
    stage.ask()
    stage.pending().requester.finish(ComputeFailed("the backend has failed"))
    assert stage.told == ["acquired m/any", "recorded", "released", "failed"]
    assert stage.caller.refusal() == (Code.INTERNAL, "the backend has failed")
    assert stage.recorded[0].outcome == "failed"


@pytest.mark.parametrize(
    ("asked", "refusal", "code", "said"),
    [
        (b"\xff\xff\xff", None, Code.INVALID_ARGUMENT, "not a ModelInferRequest"),
        (None, UnknownModel("no such model"), Code.INVALID_ARGUMENT, "no such model"),
        (None, NotReady("it is loading"), Code.UNAVAILABLE, "it is loading"),
        (None, ValueError("a fault"), Code.INTERNAL, "internal error: ValueError: a fault"),
    ],
)
def test_what_finds_no_model_is_turned_away_and_counted(
    asked: bytes | None, refusal: Exception | None, code: Code, said: str
) -> None:
    stage, recorder = Stage(refusal=refusal), Recorder(refusals=REFUSALS)
    stage.inference = Inference(cast(ModelManager, stage), recorder, max_steps=10)
    stage.ask(asked)
    told = stage.caller.refusal()
    assert told[0] is code
    assert said in told[1]
    assert recorder.refused == dict.fromkeys(REFUSALS, 0) | {code.name: 1}


def test_a_server_that_leaves_refuses_before_it_looks() -> None:
    stage, recorder = Stage(), Recorder(refusals=REFUSALS)
    stage.inference = Inference(cast(ModelManager, stage), recorder, max_steps=10)
    stage.inference.refuse()
    stage.ask()
    assert stage.told == ["failed"]
    assert stage.caller.refusal() == (Code.UNAVAILABLE, "Server exiting")
    assert recorder.refused["UNAVAILABLE"] == 1


def test_a_follower_learns_of_the_answer() -> None:
    follower = Following()
    stage = Stage(follower=follower)
    stage.ask()
    stage.pending().requester.encode(Y)
    stage.pending().requester.finish_all([stage.pending().requester])
    assert follower.told == [("offered", "2", 1), ("answered", ["y"])]


@pytest.mark.parametrize("full", [None, Overloaded("full")])
def test_a_follower_learns_that_there_will_be_no_answer(full: ServingError | None) -> None:
    follower = Following()
    stage = Stage(StubModel(full=full), follower=follower)
    stage.ask()
    if not full:
        stage.pending().requester.finish(ComputeFailed("the backend has failed"))
    assert follower.told == [("offered", "2", 1), "given up"]


def test_a_request_that_another_model_answers_is_counted_and_leased_there() -> None:
    stage, other = Stage(), StubModel(version="3")
    first = stage.model
    stage.ask()
    pending = stage.pending()
    pending.requester.move(stage.lease(other))
    assert (first.metrics.in_flight, other.metrics.in_flight) == (0, 1)
    assert stage.told == ["acquired m/any", "released"]
    stage.model = other
    pending.requester.encode(Y)
    pending.requester.finish_all([pending.requester])
    assert stage.told[2:] == ["recorded", "released the other", "replied"]
    assert stage.caller.answer().model_version == "3"


def test_a_real_model_answers_and_is_free_to_go(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    manager, caller, late = managing(tmp_path), Caller(), Caller()
    inference = Inference(manager, Recorder(), max_steps=10)
    inference.infer_all([(request("fake", 2.0, 3).SerializeToString(), caller)])
    (raw,) = caller.answer().raw_output_contents
    assert np.frombuffer(raw, np.float32).tolist() == [18, 18]
    inference.infer_all([(request("fake", 2.0, 11).SerializeToString(), late)])
    assert late.refusal()[0] is Code.INVALID_ARGUMENT
    (status,) = manager.entries()
    assert {name: count for name, count in status.counts["fake"].requests.items() if count} == {
        "success": 1,
        "invalid": 1,
    }
    assert not manager.busy()
    assert manager.close(10), "every lease was released"


def test_a_burst_finds_its_model_and_its_queue_once() -> None:
    stage = Stage()
    callers = [Caller() for _ in range(4)]
    others = request("other", 1.0, 2).SerializeToString()
    asked = [request("m", 1.0, 2).SerializeToString()] * 3
    stage.inference.infer_all(list(zip([*asked, others], callers, strict=True)))
    assert stage.told == ["acquired m/any", "acquired other/any"]
    assert stage.model.bursts == [4], "of one model, whatever it was called"
    assert stage.model.metrics.in_flight == 4


def test_what_is_wrong_with_one_request_of_a_burst_is_that_ones_alone(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    manager = managing(tmp_path)
    inference = Inference(manager, Recorder(), max_steps=10)
    good = [request("fake", value, 3).SerializeToString() for value in (1.0, 2.0, 3.0)]
    bad = [b"\xff\xff\xff", request("nobody", 1.0, 3).SerializeToString(), request("fake", 1.0, 11).SerializeToString()]
    asked = [(payload, Caller()) for pair in zip(bad, good, strict=True) for payload in pair]
    neighbours = [(bad[1], Caller()) for _ in range(2)]
    inference.infer_all([*asked, *neighbours])
    assert ["unknown model" in caller.refusal()[1] for _, caller in neighbours] == [True, True]
    said = ["not a ModelInferRequest", "unknown model", "at most 10 are allowed"]
    for (_, caller), what in zip(asked[::2], said, strict=True):
        assert what in caller.refusal()[1]
    sums = [np.frombuffer(caller.answer().raw_output_contents[0], np.float32).tolist() for _, caller in asked[1::2]]
    assert sums == [[9, 9], [18, 18], [27, 27]]
    assert not manager.busy()
    assert manager.close(10), "every lease was released"


def with_lengths(value: float) -> bytes:
    asked = request("fake", value, 3)
    asked.inputs.add(name="lengths", datatype="INT64", shape=[1])
    asked.raw_input_contents.append(np.array([3], np.int64).tobytes())
    return asked.SerializeToString()


def test_a_request_that_only_begins_like_one_that_was_seen_is_read_whole(tmp_path: Path) -> None:
    """The last of two names counts; and what stands where elements stood may be another field."""
    for name in ("fake", "other"):
        fake_models.write(tmp_path, name)
    manager = managing(tmp_path)
    let_in(manager, dataclasses.replace(request_of(tmp_path, "other"), defaults=ServerDefaults(backend="fake")))
    inference = Inference(manager, Recorder(), max_steps=10)
    seen = [(with_lengths(value), Caller()) for value in (1.0, 2.0, 3.0)]
    for each in seen:
        inference.infer_all([each])
    renamed = with_lengths(4.0) + pb.ModelInferRequest(model_name="other").SerializeToString()
    raw = pb.ModelInferRequest(raw_input_contents=[np.array([3], np.int64).tobytes()]).SerializeToString()
    field = pb.ModelInferRequest(model_name="12345678").SerializeToString()[:1]
    assert with_lengths(5.0).endswith(raw)
    instead = with_lengths(5.0)[: -len(raw)] + field + raw[1:]
    odd = [(renamed, Caller()), (instead, Caller()), (with_lengths(6.0)[:-1], Caller()), (with_lengths(7.0), Caller())]
    inference.infer_all(odd)
    answers = [caller.answer() for _, caller in (*seen, odd[0], odd[3])]
    assert [answer.model_name for answer in answers] == ["fake", "fake", "fake", "other", "fake"]
    sums = [np.frombuffer(answer.raw_output_contents[0], np.float32)[0] for answer in answers]
    assert sums == [9, 18, 27, 36, 63]
    assert "unknown model" in odd[1][1].refusal()[1]
    assert "not a ModelInferRequest" in odd[2][1].refusal()[1]
    assert not manager.busy()
    assert manager.close(10), "every lease was released once"


def test_a_full_queue_refuses_before_anything_but_the_head_is_read() -> None:
    stage = Stage(StubModel(room=(2, 1 << 30)))
    callers = [Caller() for _ in range(4)]
    sent = request("m", 1.0, 2)
    sent.id = "7"
    asked = sent.SerializeToString()
    head = pb.ModelInferRequest(model_name="m", id="7").SerializeToString()
    stage.inference.infer_all(list(zip([asked, asked, asked, head + b"no request"], callers, strict=True)))
    assert len(stage.model.submitted) == 2
    for refused in callers[2:]:
        assert (refused.refusal(), refused.retry_ms) == ((Code.UNAVAILABLE, "no room"), 250)
    assert [(ended.outcome, ended.request_id) for ended in stage.recorded] == [("rejected", "7")] * 2
    assert stage.told.count("released") == 2


def test_room_is_counted_in_bytes_too() -> None:
    asked = request("m", 1.0, 2).SerializeToString()
    stage = Stage(StubModel(room=(9, 2 * len(asked))))
    callers = [Caller() for _ in range(3)]
    stage.inference.infer_all(list(zip([asked] * 3, callers, strict=True)))
    assert [pending.size for pending in stage.model.submitted] == [len(asked)] * 2
    assert callers[2].refusal() == (Code.UNAVAILABLE, "no room")


@pytest.mark.parametrize("again", [1, 2, 3], ids=["read whole", "by its plan", "by its template"])
def test_what_a_request_asks_of_the_queue_reaches_it(again: int) -> None:
    stage = Stage()
    sent = request("m", 1.0, 2)
    sent.parameters["priority"].uint64_param = 3
    sent.parameters["timeout"].int64_param = 500
    for _ in range(again):
        stage.inference.infer_all([(sent.SerializeToString(), Caller())])
    assert stage.model.submitted[-1].turn == Turn(priority=3, timeout_ns=500_000)


def test_an_error_other_than_overload_says_nothing_of_when_to_try_again() -> None:
    stage = Stage(StubModel(full=TimedOut("late")))
    stage.ask()
    assert (stage.caller.refusal()[0], stage.caller.retry_ms) == (Code.UNAVAILABLE, 0)
    assert stage.recorded[0].outcome == "timed_out"


def test_whose_client_has_gone_within_the_burst_is_not_asked_for() -> None:
    stage = Stage()
    gone = Caller()
    gone.gone = True
    payload = request("m", 1.0, 2).SerializeToString()
    stage.inference.infer_all([(payload, gone), (payload, stage.caller)])
    assert stage.told.count("acquired m/any") == 1
    assert len(stage.model.submitted) == 1
    assert gone.waits
