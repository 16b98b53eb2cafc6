"""Counting, in plain integers, once a batch and under one lock.

An `observe` of `prometheus_client` costs 1.4 us and a request needs six of them, so its registry is told only when somebody
scrapes (`serving/edge/prometheus.py`). ModelStatistics reads the very same integers, so the two cannot disagree.
"""

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_left
from collections.abc import Sequence

from serving.telemetry.timeline import STAGES, Timeline

# Upper bounds in nanoseconds: 50 us to 10 s, three to a decade and finer where an LSTM's answers fall.
DURATION_BOUNDS_NS = tuple(
    int(us * 1000)
    for us in (50, 75, 100, 150, 200, 300, 400, 600, 800, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000,
               25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000)
)  # fmt: skip
ROWS_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PADDING_BOUNDS = (0, 10, 20, 50, 100, 150, 200, 300, 400, 500, 700, 900)  # thousandths of a batch

SUCCESS = "success"
OUTCOMES = (SUCCESS, "invalid", "rejected", "timed_out", "expired", "cancelled", "failed")

# Of a row that is to be computed again alone: it was answered alike, or otherwise, or failed, or there was no room for it.
SAME, DIFFERENT, FAILED, DROPPED = "same", "different", "failed", "dropped"
WATCHED = (SAME, DIFFERENT, FAILED, DROPPED)


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

    def observe_all(self, values: Sequence[int]) -> None:
        """Each of them."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

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
    """All counts of one version in one backend; they go on where they were when a swapped backend comes back.

    Written by its worker once a batch, and by whoever refuses a request at the door.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = dict.fromkeys(OUTCOMES, 0)
        self.duration = Histogram(DURATION_BOUNDS_NS)
        self.stages = tuple(Histogram(DURATION_BOUNDS_NS) for _ in STAGES)
        self.batch_rows = Histogram(ROWS_BOUNDS)
        self.padding = Histogram(PADDING_BOUNDS)
        self.batches: dict[int, BatchStatistics] = {}
        self.failed_ns = 0
        self.rows_computed = 0
        self.last_inference_ms = 0
        self.load_seconds = 0.0
        self.rows_watched = dict.fromkeys(WATCHED, 0)
        self.in_flight = 0

    def entered(self) -> None:
        """A request has found this version."""
        with self.lock:
            self.in_flight += 1

    def left(self) -> None:
        """A request will be answered by another backend, and is counted there."""
        with self.lock:
            self.in_flight -= 1

    def refused(self, outcome: str, duration_ns: int) -> None:
        """A request has ended without an answer; `outcome` is one of `OUTCOMES`."""
        with self.lock:
            self.in_flight -= 1
            self.requests[outcome] += 1
            self.failed_ns += duration_ns

    def repeated(self, timeline: Timeline) -> None:
        """A request was answered as it had been answered before; nothing was computed."""
        with self.lock:
            self.in_flight -= 1
            self.requests[SUCCESS] += 1
            self.duration.observe(timeline.encoded - timeline.received)

    def watched(self, outcome: str) -> None:
        """A row of a batch was to be computed again, alone; `outcome` is one of `WATCHED`."""
        with self.lock:
            self.rows_watched[outcome] += 1

    def answered(self, rows: int, timelines: Sequence[Timeline], wall_ms: int, padding_ratio: float = 0.0) -> None:
        """One batch of `rows` rows has been computed, a share of it padding; the requests of `timelines` are encoded."""
        spans = [timeline.stages() for timeline in timelines]
        decode, queue, compute, encode = zip(*spans, strict=True) if spans else ((), (), (), ())
        with self.lock:
            self.in_flight -= len(timelines)
            self.requests[SUCCESS] += len(timelines)
            self.rows_computed += rows
            self.last_inference_ms = wall_ms
            self.batch_rows.observe(rows)
            self.padding.observe(round(1000 * padding_ratio))
            batch = self.batches.get(rows)
            if batch is None:
                batch = self.batches[rows] = BatchStatistics()
            batch.executions += 1
            batch.compute_ns += compute[0] if compute else 0
            batch.decode_ns += sum(decode)
            batch.encode_ns += sum(encode)
            for histogram, stage in zip(self.stages, (decode, queue, compute, encode), strict=True):
                histogram.observe_all(stage)
            self.duration.observe_all([sum(span) for span in spans])


@dataclasses.dataclass
class StoreCounts:
    """What has become of what was written to the store of sequences, since the server started. Its thread alone writes them."""

    transactions: int = 0
    rows: int = 0
    bytes: int = 0
    failures: int = 0
    seconds: float = 0.0
    failing: bool = False  # the last transaction has failed
    damaged: int = 0  # records that could not be read
