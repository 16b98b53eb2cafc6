"""Quantiles from the server's own histograms, the way Prometheus computes them (`histogram_quantile`).

A quantile is interpolated within the bucket that it falls into, so it is as exact as the buckets are fine.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.parser import text_string_to_metric_families


def buckets(text: str, histogram: str, **labels: str) -> list[tuple[float, float]]:
    """The cumulative `(upper bound in seconds, count)` pairs of one histogram series in the text of /metrics."""
    found = [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"{histogram}_bucket" and labels.items() <= sample.labels.items()
    ]
    if not found:
        raise LookupError(f"/metrics has no {histogram} with {labels}")
    return sorted(found)


def quantile(share: float, pairs: Sequence[tuple[float, float]]) -> float:
    """The value (in the histogram's unit) below which `share` of the observations lie; NaN if there are none."""
    total = pairs[-1][1]
    if not total:
        return float("nan")
    rank, lower_bound, lower_count = share * total, 0.0, 0.0
    for bound, count in pairs:
        if count >= rank:
            if bound == float("inf"):
                return lower_bound
            return lower_bound + (bound - lower_bound) * (rank - lower_count) / (count - lower_count)
        lower_bound, lower_count = bound, count
    return lower_bound
