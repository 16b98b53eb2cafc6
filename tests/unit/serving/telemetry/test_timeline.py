"""The stages of a request, from its stamps."""

from __future__ import annotations

from serving.telemetry.timeline import STAGES, Timeline, now_ns
from tests.support.counting import timeline


def test_each_stage_lasts_from_one_stamp_to_the_next() -> None:
    made = timeline(100, 101, 103, 107, 115)
    assert dict(zip(STAGES, made.stages(), strict=True)) == {"decode": 1, "queue": 2, "compute": 4, "encode": 8}
    assert sum(made.stages()) == made.encoded - made.received


def test_a_request_that_has_just_come_has_one_stamp() -> None:
    made = Timeline(7)
    assert (made.received, made.decoded, made.started, made.computed, made.encoded) == (7, 0, 0, 0, 0)


def test_the_clock_never_goes_back() -> None:
    stamps = [now_ns() for _ in range(100)]
    assert stamps == sorted(stamps)
