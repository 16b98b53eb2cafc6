"""Counting, and showing what was counted to Prometheus.

Requests are counted in plain integers, once a batch and under one lock, because an `observe` of `prometheus_client`
costs 1.4 us and a request needs six of them. A custom collector turns the integers into metric families when somebody
scrapes. ModelStatistics reads the very same integers, so the two cannot disagree.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from serving.timeline import STAGES, Timeline

# Upper bounds in nanoseconds: 50 us to 10 s, three to a decade and finer where an LSTM's answers fall.
DURATION_BOUNDS_NS = tuple(
    int(us * 1000)
    for us in (50, 75, 100, 150, 200, 300, 400, 600, 800, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000,
               25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000)
)  # fmt: skip
ROWS_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

OUTCOMES = ("success", "invalid", "rejected", "expired", "cancelled", "failed")


class Histogram:
    """Counts of integers at or below each bound; the last count is for everything above."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self, scale: float) -> tuple[list[tuple[str, float]], float]:
        """Cumulative `(le, count)` pairs as Prometheus wants them and the sum, both bounds and sum divided by `scale`."""
        pairs, running = [], 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            running += count
            pairs.append((repr(bound / scale), float(running)))
        pairs.append(("+Inf", float(running + self.counts[-1])))
        return pairs, self.total / scale


class BatchStatistics:
    """Executions of one number of rows: how many, and the nanoseconds of decoding, computing and encoding for them."""

    __slots__ = ("compute_ns", "decode_ns", "encode_ns", "executions")

    def __init__(self) -> None:
        self.executions = self.decode_ns = self.compute_ns = self.encode_ns = 0


class ModelMetrics:
    """All counts of one live version. Written by its worker once a batch, and by whoever refuses a request at the door."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = dict.fromkeys(OUTCOMES, 0)
        self.duration = Histogram(DURATION_BOUNDS_NS)
        self.stages = tuple(Histogram(DURATION_BOUNDS_NS) for _ in STAGES)
        self.batch_rows = Histogram(ROWS_BOUNDS)
        self.batches: dict[int, BatchStatistics] = {}
        self.failed_ns = 0
        self.rows_computed = 0
        self.last_inference_ms = 0
        self.load_seconds = 0.0
        self.in_flight = 0

    def entered(self) -> None:
        """A request has found this version."""
        with self.lock:
            self.in_flight += 1

    def refused(self, outcome: str, duration_ns: int) -> None:
        """A request has ended without an answer; `outcome` is one of `OUTCOMES`."""
        with self.lock:
            self.in_flight -= 1
            self.requests[outcome] += 1
            self.failed_ns += duration_ns

    def answered(self, rows: int, timelines: Sequence[Timeline], wall_ms: int) -> None:
        """One batch of `rows` rows has been computed; the requests of `timelines` are encoded."""
        spans = [timeline.stages() for timeline in timelines]
        with self.lock:
            self.in_flight -= len(timelines)
            self.requests["success"] += len(timelines)
            self.rows_computed += rows
            self.last_inference_ms = wall_ms
            self.batch_rows.observe(rows)
            batch = self.batches.get(rows)
            if batch is None:
                batch = self.batches[rows] = BatchStatistics()
            batch.executions += 1
            batch.compute_ns += spans[0][2] if spans else 0
            for span in spans:
                batch.decode_ns += span[0]
                batch.encode_ns += span[3]
                for histogram, stage_ns in zip(self.stages, span, strict=True):
                    histogram.observe(stage_ns)
                self.duration.observe(sum(span))


class ModelView(Protocol):
    """What the collector needs to know of a version that is known to the server, loaded or not."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def backend(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def verified(self) -> bool: ...
    @property
    def metrics(self) -> ModelMetrics | None: ...
    def queue_depth(self) -> int: ...


class Collector:
    """Turns the counts into metric families whenever Prometheus asks.

    `models` lists the versions known now. `refused` counts, by gRPC code, calls that were turned away before
    any model was found.
    """

    def __init__(self, models: Callable[[], Iterable[ModelView]], refused: Mapping[str, int]) -> None:
        self._models = models
        self._refused = refused

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: the registry need not collect in order to learn our names."""
        return []

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "version", "backend"]
        requests = CounterMetricFamily(
            "lstm_serving_requests", "Inference requests, by how they ended.", labels=[*labels, "outcome"]
        )
        duration = HistogramMetricFamily(
            "lstm_serving_request_duration_seconds",
            "Time of an answered request inside the server, from its bytes to the answer's bytes.",
            labels=labels,
        )
        stage = HistogramMetricFamily(
            "lstm_serving_stage_duration_seconds",
            "Time of an answered request in each stage: decode, queue, compute, encode.",
            labels=[*labels, "stage"],
        )
        batch_rows = HistogramMetricFamily("lstm_serving_batch_rows", "Rows of each computed batch.", labels=labels)
        in_flight = GaugeMetricFamily(
            "lstm_serving_requests_in_flight",
            "Requests that have found their model and are not answered yet.",
            labels=labels,
        )
        depth = GaugeMetricFamily("lstm_serving_queue_depth", "Requests that wait for a batch.", labels=labels)
        state = GaugeMetricFamily(
            "lstm_serving_model_state", "1 for the state that a version is in.", labels=[*labels, "verified", "state"]
        )
        load = GaugeMetricFamily(
            "lstm_serving_model_load_duration_seconds", "Time to load and verify a version.", labels=labels
        )
        for model in self._models():
            values = [model.name, model.version, model.backend]
            state.add_metric([*values, str(model.verified).lower(), model.state], 1)
            metrics = model.metrics
            if metrics is None:
                continue
            depth.add_metric(values, model.queue_depth())
            with metrics.lock:
                for outcome, count in metrics.requests.items():
                    requests.add_metric([*values, outcome], count)
                duration.add_metric(values, *metrics.duration.buckets(1e9))
                for name, histogram in zip(STAGES, metrics.stages, strict=True):
                    stage.add_metric([*values, name], *histogram.buckets(1e9))
                batch_rows.add_metric(values, *metrics.batch_rows.buckets(1))
                in_flight.add_metric(values, metrics.in_flight)
                load.add_metric(values, metrics.load_seconds)
        refused = CounterMetricFamily(
            "lstm_serving_requests_refused",
            "Inference requests that found no model to answer them, and calls without a valid token.",
            labels=["code"],
        )
        for code, count in list(self._refused.items()):
            refused.add_metric([code], count)
        yield from (requests, duration, stage, batch_rows, in_flight, depth, state, load, refused)
