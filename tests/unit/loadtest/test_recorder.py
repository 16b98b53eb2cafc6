"""What is counted, where, and how percentiles come out of it."""

from __future__ import annotations

import math

import pytest

from loadtest.calls import Answer
from loadtest.recorder import WINDOWS, Latencies, Recorder

SECOND = 10**9
BEGIN, END = 100 * SECOND, 160 * SECOND  # windows of one second


def latencies(*milliseconds: int) -> Latencies:
    made = Latencies()
    for value in milliseconds:
        made.record(value * 1_000_000)
    return made


def ok(started_ns: int) -> Answer:
    return Answer(started_ns, 0, "", b"payload")


def test_percentiles_within_three_digits() -> None:
    made = latencies(*range(1, 1001))
    assert made.percentiles([50, 90, 99, 99.9]) == pytest.approx([0.5, 0.9, 0.99, 0.999], rel=2e-3)
    assert made.max_seconds == 1.0
    assert made.mean_seconds == pytest.approx(0.5005, rel=2e-3)


def test_no_percentile_is_above_the_maximum() -> None:
    made = latencies(3)
    assert made.percentiles([50, 99.9, 100]) == [0.003] * 3


def test_nothing_recorded_has_no_percentile() -> None:
    assert math.isnan(Latencies().percentiles([50])[0])


def test_a_sum_is_as_if_all_had_been_recorded_in_one() -> None:
    whole = Latencies().add([latencies(1, 2), latencies(), latencies(30)])
    assert whole.count == 3
    assert whole.max_seconds == 0.03
    assert whole.percentiles([50]) == pytest.approx([0.002], rel=1e-3)


def test_a_latency_belongs_to_its_start_and_a_completion_to_its_end() -> None:
    recorder = Recorder(BEGIN, END)
    recorder.add(ok(BEGIN + SECOND // 2), BEGIN + 3 * SECOND)
    assert recorder.windows[0].max_seconds == 2.5
    assert recorder.completed[3] == 1
    assert recorder.succeeded == 1


@pytest.mark.parametrize(
    ("started", "answered", "measured", "completed"),
    [
        (BEGIN - 1, BEGIN + 1, 0, 1),  # sent in the warm-up, answered in the measured time
        (BEGIN - 2, BEGIN - 1, 0, 0),
        (BEGIN, BEGIN + 1, 1, 1),
        (END - 1, END + SECOND, 1, 0),  # due in time, answered after the end
        (END, END + 1, 0, 0),
    ],
)
def test_the_borders_of_the_measured_time(started: int, answered: int, measured: int, completed: int) -> None:
    recorder = Recorder(BEGIN, END)
    recorder.add(ok(started), answered)
    assert (recorder.succeeded, sum(recorder.completed)) == (measured, completed)
    assert sum(window.count for window in recorder.windows) == measured


def test_a_duration_that_no_window_divides_loses_nothing() -> None:
    recorder = Recorder(0, WINDOWS * 10 + 7)
    for started in range(WINDOWS * 10 + 7):
        recorder.add(ok(started), started + 5)
    assert recorder.succeeded == WINDOWS * 10 + 7


def test_a_latency_beyond_the_range_is_counted_at_its_end() -> None:
    recorder = Recorder(0, SECOND)
    recorder.add(ok(0), 5000 * SECOND)
    assert recorder.windows[0].max_seconds == 3600


def test_errors_are_counted_by_code_and_have_no_latency() -> None:
    recorder = Recorder(BEGIN, END)
    recorder.add(Answer(BEGIN, 4, "too late", None), BEGIN + 1)
    for number in range(3):
        recorder.add(Answer(BEGIN, 14, f"full {number}", None), BEGIN + 1)
    recorder.add(Answer(BEGIN - 1, 14, "in the warm-up", None), BEGIN + 1)
    assert list(recorder.errors_by_name({4: "LATE", 14: "FULL"}).items()) == [("FULL", 3), ("LATE", 1)]
    assert recorder.messages == {4: "too late", 14: "full 0"}
    assert not any(window.count for window in recorder.windows)
