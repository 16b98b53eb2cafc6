"""A request has ended: who is told, and of how many the access log tells."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

import pytest

from serving.telemetry.counters import OUTCOMES, SUCCESS, ModelMetrics
from serving.telemetry.ended import Ended, Recorder
from serving.telemetry.timeline import Timeline


def ended(outcome: str = SUCCESS, code: str = "OK", message: str = "") -> Ended:
    """A request that took 2.5 ms."""
    return Ended("m", "2", "7", outcome, code, message, Timeline(1_000_000), 3_500_000)


def entered() -> ModelMetrics:
    metrics = ModelMetrics()
    metrics.entered()
    return metrics


@pytest.mark.parametrize("outcome", [outcome for outcome in OUTCOMES if outcome != SUCCESS])
def test_what_was_not_answered_is_counted_here(outcome: str) -> None:
    metrics = entered()
    Recorder().ended(ended(outcome), metrics)
    assert {each: count for each, count in metrics.requests.items() if count} == {outcome: 1}
    assert (metrics.in_flight, metrics.failed_ns) == (0, 2_500_000)


def test_what_was_answered_is_counted_with_its_batch_and_not_again() -> None:
    metrics = entered()
    Recorder().ended(ended(), metrics)
    assert (metrics.requests[SUCCESS], metrics.in_flight) == (0, 1)


@pytest.mark.parametrize(
    ("share", "draws", "logged"),
    [
        (0.0, [], 0),
        (1.0, [0.0, 0.5, 0.999], 3),
        (0.5, [0.0, 0.499, 0.5, 0.999], 2),
        (0.001, [0.0, 0.001, 0.5], 1),
    ],
)
def test_the_access_log_has_its_share(
    share: float, draws: list[float], logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    left: Iterator[float] = iter(draws)
    recorder = Recorder(share, draw=lambda: next(left))
    for _ in draws or [None]:
        recorder.ended(ended(), entered())
    assert len(caplog.records) == logged
    assert next(left, None) is None, "it is drawn once for each request, and never where nothing is logged"


def test_a_step_is_told_with_its_sequence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for sequence in (7, "patient 7", ""):
        Recorder(1.0).ended(dataclasses.replace(ended(), sequence=sequence), entered())
    told = [record.fields.get("sequence") for record in caplog.records]  # type: ignore[attr-defined]
    assert told == [7, "patient 7", None]


@pytest.mark.parametrize(
    ("request_", "line"),
    [(ended(), "request"), (ended("invalid", "INVALID_ARGUMENT", "100 %s wrong"), "100 %s wrong")],
)
def test_a_line_says_who_asked_whom_and_how_it_ended(
    request_: Ended, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    Recorder(1.0).ended(request_, entered())
    (record,) = caplog.records
    assert record.getMessage() == line
    assert record.__dict__["fields"] == {
        "model": "m",
        "version": "2",
        "request_id": "7",
        "code": request_.code,
        "duration_ms": 2.5,
    }


def test_refused_calls_are_counted_from_zero_and_so_are_codes_that_nobody_foresaw() -> None:
    recorder = Recorder(refusals=("NOT_FOUND", "UNAVAILABLE"))
    assert recorder.refused == {"NOT_FOUND": 0, "UNAVAILABLE": 0}
    for code in ("UNAVAILABLE", "INTERNAL", "UNAVAILABLE"):
        recorder.turned_away(code)
    assert recorder.refused == {"NOT_FOUND": 0, "UNAVAILABLE": 2, "INTERNAL": 1}
