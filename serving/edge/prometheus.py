"""What Prometheus sees: the counts, turned into metric families whenever somebody scrapes.

The counters of a backend that was swapped away stay, at rest, because a counter that disappears and comes back smaller
looks like a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from serving.lifecycle.load_failures import KINDS
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.statuses import VersionStatus
from serving.telemetry.timeline import STAGES

LABELS = ["model", "version", "backend"]


class Collector:
    """A collector of `prometheus_client`. `refused` counts, by gRPC code, calls that found no model."""

    def __init__(self, manager: ModelManager, refused: Mapping[str, int]) -> None:
        self._manager = manager
        self._refused = refused

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: the registry need not collect in order to learn our names."""
        return []

    def collect(self) -> Iterator[Metric]:
        entries = self._manager.entries()
        yield from _counts(entries)
        yield from _states(entries)
        yield from _measured(entries)
        yield from self._changes(entries)
        yield from self._shadows()
        yield _counter(
            "requests_refused",
            "Inference requests that found no model to answer them, and calls without a valid token.",
            ["code"],
            (((code,), count) for code, count in list(self._refused.items())),
        )

    def _changes(self, entries: Iterable[VersionStatus]) -> Iterator[Metric]:
        # A rate sees the first failure only of a counter that was there before.
        loaded = {(e.name, version) for e in entries if e.alive is not None for version in (e.version, "")}
        known = [(*each, reason) for each in sorted(loaded) for reason in KINDS]
        yield _counter(
            "backend_swaps",
            "Times that another backend or device began to answer for a version, and why.",
            ["model", "version", "from", "to", "reason"],
            self._manager.swaps.snapshot().items(),
        )
        yield _counter(
            "model_load_failures",
            "Loads that failed, and why; what served before serves on.",
            ["model", "version", "reason"],
            {**dict.fromkeys(known, 0), **self._manager.failures.snapshot()}.items(),
        )

    def _shadows(self) -> Iterator[Metric]:
        labels = ["model", "version", "target"]
        requests = CounterMetricFamily(
            "lstm_serving_shadow_requests", "Copies of requests, by what became of them.", labels=[*labels, "outcome"]
        )
        largest = GaugeMetricFamily(
            "lstm_serving_shadow_largest_difference",
            "The largest |shadow - answer| / max(1, |answer|) so far.",
            labels=labels,
        )
        classes = CounterMetricFamily(
            "lstm_serving_shadow_classes",
            "Rows whose best class the shadow agreed upon, or not.",
            labels=[*labels, "agree"],
        )
        shadows = self._manager.shadows()
        for model, version, shadow in shadows:
            values, counts = [model, version, shadow.target], shadow.counts[version]
            with counts.lock:
                for outcome, count in counts.requests.items():
                    requests.add_metric([*values, outcome], count)
                largest.add_metric(values, counts.largest_difference)
                for agree, count in counts.classes.items():
                    classes.add_metric([*values, str(agree).lower()], count)
        if shadows:
            yield from (requests, largest, classes)


def _counts(entries: Iterable[VersionStatus]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "lstm_serving_requests", "Inference requests, by how they ended.", labels=[*LABELS, "outcome"]
    )
    duration = HistogramMetricFamily(
        "lstm_serving_request_duration_seconds",
        "Time of an answered request inside the server, from its bytes to the answer's bytes.",
        labels=LABELS,
    )
    stage = HistogramMetricFamily(
        "lstm_serving_stage_duration_seconds",
        "Time of an answered request in each stage: decode, queue, compute, encode.",
        labels=[*LABELS, "stage"],
    )
    batch_rows = HistogramMetricFamily("lstm_serving_batch_rows", "Rows of each computed batch.", labels=LABELS)
    in_flight = GaugeMetricFamily(
        "lstm_serving_requests_in_flight",
        "Requests that have found their model and are not answered yet.",
        labels=LABELS,
    )
    load = GaugeMetricFamily(
        "lstm_serving_model_load_duration_seconds", "Time to load, verify and warm up a version.", labels=LABELS
    )
    watched = CounterMetricFamily(
        "lstm_serving_rows_watched",
        "Rows of batches that were computed again alone, by how that answer agreed with the one in company.",
        labels=[*LABELS, "outcome"],
    )
    for entry in entries:
        for backend, metrics in entry.counts.items():
            values = [entry.name, entry.version, backend]
            with metrics.lock:
                for outcome, count in metrics.requests.items():
                    requests.add_metric([*values, outcome], count)
                duration.add_metric(values, *metrics.duration.buckets(1e9))
                for name, histogram in zip(STAGES, metrics.stages, strict=True):
                    stage.add_metric([*values, name], *histogram.buckets(1e9))
                batch_rows.add_metric(values, *metrics.batch_rows.buckets(1))
                in_flight.add_metric(values, metrics.in_flight)
                load.add_metric(values, metrics.load_seconds)
                for outcome, count in metrics.rows_watched.items():
                    watched.add_metric([*values, outcome], count)
    yield from (requests, duration, stage, batch_rows, in_flight, load, watched)


def _states(entries: Iterable[VersionStatus]) -> Iterator[Metric]:
    depth = GaugeMetricFamily("lstm_serving_queue_depth", "Requests that wait for a batch.", labels=LABELS)
    state = GaugeMetricFamily(
        "lstm_serving_model_state", "1 for the state that a version is in.", labels=[*LABELS, "verified", "state"]
    )
    stood_in = GaugeMetricFamily(
        "lstm_serving_backend_broken", "1 while another backend answers because this one has failed.", labels=LABELS
    )
    touching = GaugeMetricFamily(
        "lstm_serving_rows_touch",
        "1 once a row was answered otherwise in a batch than alone; its requests are computed one by one since.",
        labels=LABELS,
    )
    for entry in entries:
        values = [entry.name, entry.version, entry.backend]
        state.add_metric([*values, str(entry.verified).lower(), entry.state], 1)
        if entry.alive is not None:
            depth.add_metric(values, entry.depth)
            touching.add_metric(values, int(bool(entry.touching)))
            if entry.backend not in entry.broken:
                stood_in.add_metric(values, 0)
        for broken in entry.broken:
            stood_in.add_metric([entry.name, entry.version, broken], 1)
    yield from (depth, state, stood_in, touching)


def _measured(entries: Iterable[VersionStatus]) -> Iterator[Metric]:
    """What the choice of a backend was made by, where there was one."""
    call = GaugeMetricFamily(
        "lstm_serving_backend_call_seconds",
        "Median time of a call with so many rows, as measured to choose a backend.",
        labels=[*LABELS, "device", "threads", "rows"],
    )
    for entry in entries:
        for one in entry.measured:
            place = one.candidate
            for rows, seconds in one.p50_seconds.items():
                values = [entry.name, entry.version, place.backend, place.device, str(place.threads), str(rows)]
                call.add_metric(values, seconds)
    if call.samples:
        yield call


def _counter(
    name: str, meaning: str, labels: list[str], series: Iterable[tuple[tuple[str, ...], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(f"lstm_serving_{name}", meaning, labels=labels)
    for values, count in series:
        family.add_metric(list(values), count)
    return family
