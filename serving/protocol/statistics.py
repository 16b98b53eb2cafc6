"""ModelStatistics: the protocol's view of the counts that Prometheus shows.

Our stages under the protocol's names: decode is `compute_input`, queue is `queue`, compute is `compute_infer`, encode
is `compute_output`. Counts are those of all backends that have served the version, so they never fall at a swap.
Perf_analyzer finds a model only if `queue.count` has grown.
"""

from __future__ import annotations

from collections.abc import Iterable

from protos import grpc_service_pb2 as pb
from serving.telemetry.counters import ModelMetrics


def model_statistics(name: str, version: str, counts: Iterable[ModelMetrics]) -> pb.ModelStatistics:
    """Counts and nanoseconds since this version was first loaded."""
    total = pb.ModelStatistics(name=name, version=version)
    batches: dict[int, pb.InferBatchStatistics] = {}
    for metrics in counts:
        with metrics.lock:
            _add(total, batches, metrics)
    total.batch_stats.extend(batches[rows] for rows in sorted(batches))
    return total


def _add(total: pb.ModelStatistics, batches: dict[int, pb.InferBatchStatistics], metrics: ModelMetrics) -> None:
    answered, stats = metrics.requests["success"], total.inference_stats
    total.last_inference = max(total.last_inference, metrics.last_inference_ms)
    total.inference_count += metrics.rows_computed
    total.execution_count += sum(batch.executions for batch in metrics.batches.values())
    _plus(stats.success, answered, metrics.duration.total)
    _plus(stats.fail, sum(metrics.requests.values()) - answered, metrics.failed_ns)
    names = (stats.compute_input, stats.queue, stats.compute_infer, stats.compute_output)
    for duration, histogram in zip(names, metrics.stages, strict=True):
        _plus(duration, answered, histogram.total)
    for rows, batch in metrics.batches.items():
        shown = batches.setdefault(rows, pb.InferBatchStatistics(batch_size=rows))
        _plus(shown.compute_input, batch.executions, batch.decode_ns)
        _plus(shown.compute_infer, batch.executions, batch.compute_ns)
        _plus(shown.compute_output, batch.executions, batch.encode_ns)


def _plus(duration: pb.StatisticDuration, count: int, ns: int) -> None:
    duration.count += count
    duration.ns += ns
