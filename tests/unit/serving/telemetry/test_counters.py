"""Counting: buckets, batches, and that Prometheus and ModelStatistics tell the same story."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from serving.backends.base import Candidate, Measured
from serving.edge.prometheus import Collector
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.versions import VersionStatus
from serving.protocol.statistics import model_statistics
from serving.telemetry.counters import Histogram, ModelMetrics
from serving.telemetry.timeline import STAGES, Timeline


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


def knowing(*entries: VersionStatus) -> ModelManager:
    """A manager that knows these."""
    manager = ModelManager()
    manager.entries = lambda: list(entries)  # type: ignore[method-assign]
    return manager


def timeline(*stamps: int) -> Timeline:
    made = Timeline(stamps[0])
    made.decoded, made.started, made.computed, made.encoded = stamps[1:]
    return made


def test_prometheus_and_model_statistics_agree() -> None:
    metrics = ModelMetrics()
    for _ in range(4):
        metrics.entered()
    metrics.answered(3, [timeline(0, 10, 40, 100, 105), timeline(20, 30, 40, 100, 112)], 1_700_000_000_000)
    metrics.refused("invalid", 7)
    before = ModelMetrics()  # in the backend that served before
    before.entered()
    before.answered(5, [timeline(0, 1, 2, 3, 4)], 1_600_000_000_000)
    statistics = model_statistics("m", "2", [metrics])
    assert (statistics.inference_count, statistics.execution_count) == (3, 1)
    assert statistics.last_inference == 1_700_000_000_000
    stats = statistics.inference_stats
    assert (stats.success.count, stats.success.ns) == (2, 105 + 92)
    assert (stats.fail.count, stats.fail.ns) == (1, 7)
    by_stage = [stats.compute_input, stats.queue, stats.compute_infer, stats.compute_output]
    assert [(duration.count, duration.ns) for duration in by_stage] == [(2, 20), (2, 40), (2, 120), (2, 17)]
    assert [(b.batch_size, b.compute_infer.count, b.compute_infer.ns) for b in statistics.batch_stats] == [(3, 1, 60)]

    both = model_statistics("m", "2", [before, metrics])
    assert (both.inference_count, both.inference_stats.success.count) == (3 + 5, 2 + 1)
    assert both.last_inference == 1_700_000_000_000
    assert [(b.batch_size, b.compute_infer.count) for b in both.batch_stats] == [(3, 1), (5, 1)]

    entry = VersionStatus(
        name="m",
        version="2",
        state="READY",
        backend="fake",
        verified=True,
        alive=True,
        depth=5,
        counts={"fake": metrics, "old": before},
        measured=[Measured(Candidate("fake", "cpu", 1), {8: 5e-5})],
    )
    registry = CollectorRegistry()
    registry.register(Collector(knowing(entry), {"NOT_FOUND": 3}))
    labels = {"model": "m", "version": "2", "backend": "fake"}

    def value(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"lstm_serving_{name}", {**labels, **more})

    assert value("requests_total", outcome="success") == stats.success.count
    assert value("requests_total", outcome="invalid") == stats.fail.count
    assert value("request_duration_seconds_sum") == pytest.approx(stats.success.ns / 1e9)
    for stage, duration in zip(STAGES, by_stage, strict=True):
        assert value("stage_duration_seconds_sum", stage=stage) == pytest.approx(duration.ns / 1e9)
        assert value("stage_duration_seconds_count", stage=stage) == duration.count
    assert value("batch_rows_sum") == statistics.inference_count
    assert value("batch_rows_count") == statistics.execution_count
    assert (value("requests_in_flight"), value("queue_depth")) == (1, 5)
    assert value("backend_call_seconds", device="cpu", threads="1", rows="8") == 5e-5
    labels["backend"] = "old"
    assert value("requests_total", outcome="success") == 1  # the counts of a swapped backend stay
    assert registry.get_sample_value("lstm_serving_requests_refused_total", {"code": "NOT_FOUND"}) == 3


def test_a_version_that_is_not_loaded_shows_its_state_alone() -> None:
    registry = CollectorRegistry()
    registry.register(Collector(knowing(VersionStatus(name="m", version="1", state="UNAVAILABLE")), {}))
    series = [sample for family in registry.collect() for sample in family.samples]
    assert [(s.name, s.labels["state"], s.labels["verified"]) for s in series] == [
        ("lstm_serving_model_state", "UNAVAILABLE", "false")
    ]
