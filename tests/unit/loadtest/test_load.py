"""The loops against a connection that is no connection; what depends on a real server is in the integration tests."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Sequence

import pytest

from loadtest.calls import Answer
from loadtest.errors import LoadTestError
from loadtest.load import LATE_NS, ClosedLoop, OpenLoop, now_ns
from loadtest.recorder import Recorder
from loadtest.schedule import intended_times

WINDOW_NS = 50_000_000


class Loopback:
    """Answers everything at once, or nothing."""

    def __init__(self, *, answers: bool = True, closed: bool = False) -> None:
        self.fatal: LoadTestError | None = None
        self.sent: list[bytes] = []
        self.finished = False
        self._answers = answers
        self._closed = closed
        self._events: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()

    def send(self, payload: bytes, started_ns: int) -> None:
        if self._closed:
            raise ValueError("closed")
        self.sent.append(payload)
        if self._answers:
            self._events.put(Answer(started_ns, 0, "", payload))

    def receive(self) -> Sequence[Answer] | None:
        answer = self._events.get(timeout=30)
        return None if answer is None else (answer,)

    def wake(self) -> None:
        self._events.put(None)

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        pass


def window() -> Recorder:
    begin = now_ns()
    return Recorder(begin, begin + WINDOW_NS)


def open_loop(calls: Loopback, rate: float, max_in_flight: int = 100) -> OpenLoop:
    recorder = window()
    times = intended_times(rate, "constant", 0)
    return OpenLoop(calls, [b"a", b"b", b"c"], recorder, times, recorder.begin_ns, max_in_flight)


def test_a_closed_loop_sends_in_turn_and_counts_all() -> None:
    calls = Loopback()
    loop = ClosedLoop(calls, [b"a", b"b"], window(), 3)
    loop.run_receiver()
    assert calls.finished
    assert calls.sent[:4] == [b"a", b"b", b"a", b"b"]
    assert loop.recorder.succeeded == loop.sends.sent == len(calls.sent) > 3


def test_an_open_loop_sends_what_was_due_in_the_window() -> None:
    calls = Loopback()
    loop = open_loop(calls, rate=200)
    loop.run_sender()
    loop.run_receiver()
    assert calls.finished
    assert loop.sends.sent + loop.sends.not_sent == 10
    assert loop.recorder.succeeded == loop.sends.sent == len(calls.sent)


def test_what_the_bound_holds_back_is_counted_as_not_sent() -> None:
    loop = open_loop(Loopback(answers=False), rate=10_000, max_in_flight=1)
    loop.run_sender()
    assert (loop.sends.sent, loop.sends.not_sent, loop.sends.held_back) == (1, 499, 1)


def test_a_late_send_is_counted_and_its_latency_starts_at_the_intended_time() -> None:
    calls = Loopback()
    recorder = window()
    late_ns = 10 * LATE_NS
    times = itertools.chain([0], itertools.repeat(2 * WINDOW_NS))
    recorder.begin_ns -= late_ns
    loop = OpenLoop(calls, [b"a"], recorder, times, recorder.begin_ns, 10)
    loop.run_sender()
    loop.run_receiver()
    assert loop.sends.late == 1
    assert loop.sends.lag_max_ns >= late_ns
    assert max(part.max_seconds for part in recorder.windows) >= late_ns / 1e9


def test_stopping_sends_no_more_and_counts_no_error() -> None:
    calls = Loopback(answers=False)
    loop = open_loop(calls, rate=1000)
    loop.stop()
    loop.run_sender()
    loop.run_receiver()
    assert (len(calls.sent), loop.sends.not_sent) == (0, 0)


def test_a_closed_connection_is_an_error_unless_the_run_is_stopping() -> None:
    loop = ClosedLoop(Loopback(closed=True), [b"a"], window(), 1)
    with pytest.raises(ValueError, match="closed"):
        loop.run_receiver()


def test_what_is_broken_off_long_after_the_end_has_missed_its_deadline() -> None:
    loop = ClosedLoop(Loopback(), [b"a"], window(), 1)
    loop.overdue.set()
    loop._received([Answer(loop.recorder.begin_ns, 1, "cancelled", None)])
    assert loop.recorder.errors == {4: 1}


def test_what_is_broken_off_by_stopping_is_abandoned() -> None:
    loop = ClosedLoop(Loopback(), [b"a"], window(), 1)
    loop.stop()
    loop._received([Answer(loop.recorder.begin_ns, 1, "cancelled", None)])
    assert (loop.recorder.errors, loop.abandoned) == ({}, 1)
