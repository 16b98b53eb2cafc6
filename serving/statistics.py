"""ModelStatistics: the protocol's view of the counts that Prometheus shows.

Our stages under the protocol's names: decode is `compute_input`, queue is `queue`, compute is `compute_infer`, encode
is `compute_output`. One fact that surprises: perf_analyzer finds a model only if `queue.count` has grown.
"""

from __future__ import annotations

from protos import grpc_service_pb2 as pb
from serving.model import Model


def model_statistics(model: Model) -> pb.ModelStatistics:
    """Counts and nanoseconds since this version was loaded."""
    metrics = model.metrics
    with metrics.lock:
        answered = metrics.requests["success"]
        failed = sum(metrics.requests.values()) - answered
        decode, queue, compute, encode = (
            pb.StatisticDuration(count=answered, ns=histogram.total) for histogram in metrics.stages
        )
        return pb.ModelStatistics(
            name=model.name,
            version=model.version,
            last_inference=metrics.last_inference_ms,
            inference_count=metrics.rows_computed,
            execution_count=sum(batch.executions for batch in metrics.batches.values()),
            inference_stats=pb.InferStatistics(
                success=pb.StatisticDuration(count=answered, ns=metrics.duration.total),
                fail=pb.StatisticDuration(count=failed, ns=metrics.failed_ns),
                queue=queue,
                compute_input=decode,
                compute_infer=compute,
                compute_output=encode,
            ),
            batch_stats=[
                pb.InferBatchStatistics(
                    batch_size=rows,
                    compute_input=pb.StatisticDuration(count=batch.executions, ns=batch.decode_ns),
                    compute_infer=pb.StatisticDuration(count=batch.executions, ns=batch.compute_ns),
                    compute_output=pb.StatisticDuration(count=batch.executions, ns=batch.encode_ns),
                )
                for rows, batch in sorted(metrics.batches.items())
            ],
        )
