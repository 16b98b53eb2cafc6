"""Sequences driven against a server that is none: what is sent, what is sent again, and what is compared."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from loadtest import sequence_load
from loadtest.calls import Answer
from loadtest.continuation import StateTensor
from loadtest.load import now_ns
from loadtest.recorder import Recorder
from loadtest.sequence_load import TRIES, SequenceLoop
from loadtest.sequence_plan import Plan
from loadtest.step_messages import Message, Tensor, series_of
from loadtest.streams import STREAM_ERROR
from protos import grpc_service_pb2 as pb
from tests.unit.loadtest.summing_server import DEADLINE_EXCEEDED, INVALID_ARGUMENT, UNAVAILABLE, SummingServer

MS = 1_000_000
HOUR_NS = 3_600_000 * MS
STATE = (StateTensor("s0", "s", "FP32", (1, 1)),)


def message(value: float) -> Message:
    return [Tensor("x", "FP32", np.full((1, 1, 1), value, np.float32), 1)]


def plan(*series: Sequence[float], compared: bool = True) -> Plan:
    """Series of such values; the state after each is their sum."""
    return Plan(
        head=pb.ModelInferRequest(model_name="m").SerializeToString(),
        series=[series_of([message(value) for value in values], ["y", "s"]) for values in series],
        state=STATE,
        expected=[{"s": np.full((1, 1), sum(values), np.float32)} for values in series] if compared else None,
    )


def driven(server: SummingServer, sent: Plan, *, messages: int, **changes: Any) -> SequenceLoop:
    """A run that is over when so many messages have been sent."""
    begin = now_ns()
    recorder = Recorder(begin, begin + HOUR_NS)
    options: dict[str, Any] = {"sequences": 3, "every_ns": 0, "start_ns": begin, **changes}
    loop = SequenceLoop(server, sent, recorder, **options)

    def after(number: int) -> None:
        if number == messages:
            recorder.end_ns = now_ns()

    server.after = after
    both(loop)
    return loop


def both(loop: SequenceLoop) -> None:
    sender = threading.Thread(target=loop.run_sender)
    sender.start()
    loop.run_receiver()
    sender.join(30)
    assert not sender.is_alive()
    assert isinstance(loop._calls, SummingServer)
    assert loop._calls.woken == 1, "a connection closes when all that it was asked has been received, what wakes it too"


def by_sequence(requests: Sequence[pb.ModelInferRequest]) -> dict[int, list[pb.ModelInferRequest]]:
    found: dict[int, list[pb.ModelInferRequest]] = {}
    for request in requests:
        found.setdefault(request.parameters["sequence_id"].int64_param, []).append(request)
    return found


def said(request: pb.ModelInferRequest) -> dict[str, int | bool]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "") for name, value in request.parameters.items()
    }


def test_each_sequence_is_started_numbered_and_ended() -> None:
    server = SummingServer()
    loop = driven(server, plan((1, 2, 3), (4, 5)), messages=60)
    sequences = by_sequence(server.requests)
    assert server.finished
    assert loop.tally.started == len(sequences) == loop.tally.finished + loop.tally.cut_short
    assert (loop.tally.wrong, loop.tally.given_up, loop.tally.resent) == (0, {}, {})
    assert loop.tally.compared == loop.tally.finished > 3
    for name, messages in sequences.items():
        first, *others = [said(each) for each in messages]
        start = {"sequence_id": name, "sequence_step": 0, "sequence_start": True}
        assert start.items() <= first.items()
        assert first["sequence_nonce"] == name
        assert [each["sequence_step"] for each in others] == list(range(1, len(messages)))
        assert all(each["sequence_epoch"] > 0 and "sequence_start" not in each for each in others)
        assert ["sequence_end" in said(each) for each in messages] == [*[False] * (len(messages) - 1), True]


def test_the_series_are_sent_in_turn_and_the_last_message_asks_for_the_state() -> None:
    server = SummingServer()
    driven(server, plan((1, 2, 3), (4, 5)), messages=60)
    sequences = list(by_sequence(server.requests).values())
    for messages, values in zip(sequences, itertools.cycle(((1, 2, 3), (4, 5))), strict=False):
        got = [float(np.frombuffer(each.raw_input_contents[0], "<f4")[0]) for each in messages]
        assert got == list(values)[: len(got)]
        assert [output.name for output in messages[-1].outputs] == (["y", "s"] if len(got) == len(values) else [])
        assert messages[0].model_name == "m"


def test_what_may_have_been_lost_is_sent_again_as_it_was_and_nothing_is_wrong() -> None:
    faults = {4: "refused", 5: "lost", 9: "lost", 10: "refused", 11: "lost", 20: "lost"}
    server = SummingServer(lambda number: faults.get(number, ""))
    loop = driven(server, plan((1, 2, 3)), messages=60, sequences=1)
    assert loop.tally.resent == {UNAVAILABLE: 2, DEADLINE_EXCEEDED: 4}
    assert (loop.tally.wrong, loop.recorder.errors) == (0, {})
    for number in faults:
        assert server.requests[number] == server.requests[number - 1]
    assert len(set(server.keys)) == len(server.keys)
    assert loop.recorder.succeeded == loop.sends.sent, "one message is one request, however often it was sent"


def test_a_server_that_computes_a_repeat_again_is_found_out() -> None:
    server = SummingServer(lambda number: "lost" if number == 5 else "", exact=False)
    loop = driven(server, plan((1, 2, 3)), messages=60, sequences=1)
    assert (loop.tally.wrong, loop.tally.compared) == (1, loop.tally.finished)
    assert loop.tally.worst == pytest.approx(2 / 6)  # the fifth message, a 2, is in the sum twice


def test_an_answer_without_the_state_is_a_wrong_one() -> None:
    sent = plan((1, 2, 3))
    without = Plan(sent.head, [series_of(each.messages) for each in sent.series], sent.state, sent.expected)
    loop = driven(SummingServer(), without, messages=9)
    assert loop.tally.wrong == loop.tally.compared == loop.tally.finished > 0


def test_nothing_is_compared_where_nothing_is_known() -> None:
    loop = driven(SummingServer(), plan((1, 2, 3), compared=False), messages=30)
    assert (loop.tally.compared, loop.tally.wrong) == (0, 0)
    assert loop.tally.finished > 0


def test_whoever_is_refused_for_good_is_given_up_and_another_takes_the_place() -> None:
    server = SummingServer(lambda number: "bad" if number == 2 else "")
    loop = driven(server, plan((1, 2, 3)), messages=10, sequences=1)
    first, second, *_ = by_sequence(server.requests).values()
    assert (len(first), len(second)) == (2, 3)
    assert loop.tally.given_up == loop.recorder.errors == {INVALID_ARGUMENT: 1}
    assert loop.tally.started == loop.tally.finished + loop.tally.cut_short + 1


def test_a_message_is_sent_again_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRIES, UNAVAILABLE, 3)
    server = SummingServer(lambda number: "refused" if number <= 3 else "")
    loop = driven(server, plan((1, 2)), messages=4, sequences=1)
    assert loop.tally.resent == {UNAVAILABLE: 2}
    assert loop.tally.given_up == {UNAVAILABLE: 1}
    assert next(len(each) for each in by_sequence(server.requests).values()) == 3


def test_on_a_stream_what_says_that_a_sequence_is_gone_is_not_sent_again() -> None:
    faults = {2: "busy", 3: "gone"}
    server = SummingServer(lambda number: faults.get(number, ""))
    loop = driven(server, plan((1, 2, 3)), messages=10, sequences=1)
    first, second, *_ = by_sequence(server.requests).values()
    assert (len(first), len(second)) == (3, 3)
    assert loop.tally.resent == loop.tally.given_up == {STREAM_ERROR: 1}


def test_what_a_stream_does_not_answer_in_time_is_sent_again() -> None:
    server = SummingServer(lambda number: "ignored" if number == 2 else "")
    loop = driven(server, plan((1, 2, 3)), messages=10, sequences=1, lost_after_ns=5 * MS)
    assert loop.tally.resent.get(DEADLINE_EXCEEDED, 0) >= 1
    assert server.requests[2] == server.requests[1]
    assert (loop.tally.wrong, loop.recorder.errors) == (0, {})


def test_an_answer_to_a_message_that_was_sent_again_is_counted_apart() -> None:
    loop = driven(SummingServer(), plan((1,)), messages=1, sequences=1)
    loop._received([Answer(99, 0, "", b"")])
    assert (loop.tally.late_answers, loop.tally.finished) == (1, 1)


@pytest.mark.parametrize("sequences", [1, 2, 5])
def test_with_a_pace_each_sequence_has_its_messages_due_and_all_are_sent_or_counted(sequences: int) -> None:
    begin = now_ns()
    recorder = Recorder(begin, begin + 50 * MS)
    server = SummingServer()
    loop = SequenceLoop(server, plan((1, 2, 3)), recorder, sequences=sequences, every_ns=10 * MS, start_ns=begin)
    both(loop)
    assert loop.sends.sent + loop.sends.not_sent == 5 * sequences
    assert loop.recorder.succeeded == loop.sends.sent
    assert loop.tally.started == loop.tally.finished + loop.tally.cut_short
    assert [slot.offset_ns for slot in loop._slots] == [10 * MS * place // sequences for place in range(sequences)]


@pytest.mark.parametrize("steps", [4, 6])
def test_what_is_due_before_the_answer_waits_and_its_latency_says_so(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = now_ns()
    monkeypatch.setattr(sequence_load, "now_ns", lambda: now)  # the clock stands
    begin = now - 100 * MS  # the start is long ago: all that was due since then is due now
    recorder = Recorder(begin, now + HOUR_NS)
    server = SummingServer()
    loop = SequenceLoop(server, plan((1,) * steps), recorder, sequences=1, every_ns=10 * MS, start_ns=begin)

    def after(number: int) -> None:
        if number == 4:
            recorder.end_ns = now

    server.after = after
    both(loop)
    assert loop.sends.held_back == 3, "all but the first waited for an answer"
    assert loop.sends.lag_max_ns == loop.sends.lag_total_ns == 100 * MS, (
        "the first is late by the client, the others are not"
    )
    assert (loop.sends.sent, loop.sends.not_sent) == (4, 6), "10 were due before the end"
    assert max(window.max_seconds for window in loop.recorder.windows) >= 0.1


def test_stopping_abandons_what_is_in_flight() -> None:
    server = SummingServer(lambda number: "ignored")
    begin = now_ns()
    loop = SequenceLoop(server, plan((1, 2)), Recorder(begin, begin + HOUR_NS), sequences=4, every_ns=0, start_ns=begin)

    def after(number: int) -> None:
        if number == 4:
            loop.stop()
            for key in server.keys:  # as a connection that is closed ends them
                server.events.put(Answer(key, 1, "", None))

    server.after = after
    both(loop)
    assert (loop.abandoned, loop.recorder.errors, loop.tally.given_up) == (4, {}, {})


def test_what_is_broken_off_long_after_the_end_has_missed_its_deadline() -> None:
    server = SummingServer(lambda number: "ignored")
    begin = now_ns()
    loop = SequenceLoop(server, plan((1, 2)), Recorder(begin, begin + HOUR_NS), sequences=1, every_ns=0, start_ns=begin)

    def after(number: int) -> None:
        loop.overdue.set()
        server.events.put(Answer(server.keys[0], 1, "", None))

    server.after = after
    both(loop)
    assert loop.recorder.errors == {DEADLINE_EXCEEDED: 1}


def test_a_closed_connection_is_an_error_unless_the_run_is_stopping() -> None:
    server = SummingServer()
    server.closed = True
    begin = now_ns()
    loop = SequenceLoop(server, plan((1,)), Recorder(begin, begin + HOUR_NS), sequences=1, every_ns=0, start_ns=begin)
    with pytest.raises(ValueError, match="closed"):
        loop.run_sender()
    loop.stop()
    loop.run_sender()
