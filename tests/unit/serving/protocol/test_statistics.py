"""ModelStatistics: our counts under the protocol's names."""

from __future__ import annotations

from serving.protocol.statistics import model_statistics
from serving.telemetry.counters import ModelMetrics
from tests.support.counting import counted, counted_before


def test_requests_rows_and_batches_are_told_apart() -> None:
    statistics = model_statistics("m", "2", [counted()])
    assert (statistics.name, statistics.version) == ("m", "2")
    assert (statistics.inference_count, statistics.execution_count) == (3, 1)
    assert statistics.last_inference == 1_700_000_000_000
    assert [(b.batch_size, b.compute_infer.count, b.compute_infer.ns) for b in statistics.batch_stats] == [(3, 1, 60)]


def test_times_are_those_of_the_requests_that_were_answered() -> None:
    stats = model_statistics("m", "2", [counted()]).inference_stats
    assert (stats.success.count, stats.success.ns) == (2, 105 + 92)
    assert (stats.fail.count, stats.fail.ns) == (1, 7)
    by_stage = [stats.compute_input, stats.queue, stats.compute_infer, stats.compute_output]
    assert [(duration.count, duration.ns) for duration in by_stage] == [(2, 20), (2, 40), (2, 120), (2, 17)]


def test_the_backends_of_a_version_are_counted_together() -> None:
    both = model_statistics("m", "2", [counted_before(), counted(), counted()])
    assert (both.inference_count, both.inference_stats.success.count) == (5 + 3 + 3, 1 + 2 + 2)
    assert both.last_inference == 1_700_000_000_000
    assert [(b.batch_size, b.compute_infer.count) for b in both.batch_stats] == [(3, 2), (5, 1)]


def test_a_version_that_was_never_asked_has_counts_of_nothing() -> None:
    for counts in ([], [ModelMetrics()]):
        statistics = model_statistics("m", "1", counts)
        assert (statistics.inference_count, statistics.execution_count, statistics.last_inference) == (0, 0, 0)
        assert statistics.inference_stats.success.count == 0
        assert not statistics.batch_stats
