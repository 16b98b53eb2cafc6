"""Counting: buckets, batches, and what is in flight."""

from __future__ import annotations

import pytest

from serving.telemetry.counters import OUTCOMES, SUCCESS, Histogram, ModelMetrics
from tests.support.counting import counted, timeline


@pytest.mark.parametrize(("value", "place"), [(0, 0), (9, 0), (10, 0), (11, 1), (20, 1), (21, 2)])
def test_a_bucket_holds_what_is_at_or_below_its_bound(value: int, place: int) -> None:
    histogram = Histogram((10, 20))
    histogram.observe(value)
    assert histogram.counts.index(1) == place
    assert histogram.total == value


def test_buckets_are_cumulative() -> None:
    histogram = Histogram((1_000_000, 2_000_000))
    for value in (500_000, 1_500_000, 9_000_000):
        histogram.observe(value)
    assert histogram.buckets(1e9) == ([("0.001", 1.0), ("0.002", 2.0), ("+Inf", 3.0)], 0.011)


def test_an_answered_batch_is_counted_by_requests_rows_and_stages() -> None:
    metrics = counted()
    assert (metrics.requests[SUCCESS], metrics.requests["invalid"], metrics.in_flight) == (2, 1, 1)
    assert (metrics.rows_computed, metrics.batch_rows.total, sum(metrics.batch_rows.counts)) == (3, 3, 1)
    assert (metrics.duration.total, sum(metrics.duration.counts)) == (105 + 92, 2)
    assert [stage.total for stage in metrics.stages] == [20, 40, 120, 17]
    assert (metrics.failed_ns, metrics.last_inference_ms) == (7, 1_700_000_000_000)


def test_which_share_of_each_batch_was_padding() -> None:
    metrics = ModelMetrics()
    for ratio in (0.0, 0.125, 0.5):
        metrics.entered()
        metrics.answered(2, [timeline(0, 1, 3, 7, 15)], 0, ratio)
    pairs, total = metrics.padding.buckets(1000)
    assert (dict(pairs)["0.0"], dict(pairs)["0.1"], dict(pairs)["0.15"], dict(pairs)["0.5"]) == (1, 1, 2, 3)
    assert total == 0.625


def test_batches_of_one_size_are_counted_together() -> None:
    metrics = ModelMetrics()
    for rows in (3, 3, 1):
        metrics.entered()
        metrics.answered(rows, [timeline(0, 1, 3, 7, 15)], 0)
    shown = {
        rows: (batch.executions, batch.decode_ns, batch.compute_ns, batch.encode_ns)
        for rows, batch in metrics.batches.items()
    }
    assert shown == {3: (2, 2, 8, 16), 1: (1, 1, 4, 8)}


@pytest.mark.parametrize("outcome", [each for each in OUTCOMES if each != SUCCESS])
def test_a_refused_request_is_no_longer_in_flight(outcome: str) -> None:
    metrics = ModelMetrics()
    metrics.entered()
    metrics.refused(outcome, 5)
    assert (metrics.in_flight, metrics.failed_ns) == (0, 5)
    assert {each: count for each, count in metrics.requests.items() if count} == {outcome: 1}


def test_a_request_that_another_backend_answers_is_not_counted_here() -> None:
    metrics = ModelMetrics()
    metrics.entered()
    metrics.left()
    assert metrics.in_flight == 0
    assert not any(metrics.requests.values())
