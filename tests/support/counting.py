"""Counts as a worker leaves them, made by hand."""

from __future__ import annotations

from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import Timeline


def timeline(*stamps: int) -> Timeline:
    """The stamps of a request: received, decoded, started, computed, encoded."""
    made = Timeline(stamps[0])
    made.decoded, made.started, made.computed, made.encoded = stamps[1:]
    return made


def counted() -> ModelMetrics:
    """A batch of 3 rows for two requests, one refused request, and one in flight."""
    metrics = ModelMetrics()
    for _ in range(4):
        metrics.entered()
    metrics.answered(3, [timeline(0, 10, 40, 100, 105), timeline(20, 30, 40, 100, 112)], 1_700_000_000_000)
    metrics.refused("invalid", 7)
    return metrics


def counted_before() -> ModelMetrics:
    """A batch of 5 rows for one request, some years earlier."""
    metrics = ModelMetrics()
    metrics.entered()
    metrics.answered(5, [timeline(0, 1, 2, 3, 4)], 1_600_000_000_000)
    return metrics
