"""What Prometheus sees: the counts, turned into metric families whenever somebody scrapes.

The counters of a backend that was swapped away stay, at rest, because a counter that disappears and comes back smaller
looks like a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric

from serving.edge import families
from serving.edge.edges import Chosen
from serving.edge.links import Counts
from serving.lifecycle.load_failures import KINDS
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.statuses import VersionStatus
from serving.telemetry.counters import StoreCounts
from serving.telemetry.timeline import STAGES


class Collector:
    """A collector of `prometheus_client`.

    `refused` counts, by gRPC code, calls that found no model; `edge` is what speaks gRPC.
    """

    def __init__(self, manager: ModelManager, refused: Mapping[str, int], edge: Chosen) -> None:
        self._manager = manager
        self._refused = refused
        self._edge = edge
        self.connections: Counts | None = None  # where the edge knows of its connections

    def describe(self) -> list[Metric]:
        """Nothing ahead of time: the registry need not collect in order to learn our names."""
        return []

    def collect(self) -> Iterator[Metric]:
        entries = self._manager.entries()
        yield from _counts(entries)
        yield from _states(entries)
        yield from _measured(entries)
        yield from _sequences(entries)
        if store := self._manager.store:
            yield from _store(store)
        yield from self._changes(entries)
        yield from self._shadows()
        yield _counter(families.REFUSED, (((code,), count) for code, count in list(self._refused.items())))
        yield from self._connections()

    def _connections(self) -> Iterator[Metric]:
        edge = families.EDGE.begun()
        edge.add_metric([self._edge.name, self._edge.version], 1)
        yield edge
        if counts := self.connections:
            is_open = families.CONNECTIONS.begun()
            is_open.add_metric([], counts.open)
            yield is_open
            calls = families.CALLS_OPEN.begun()
            calls.add_metric([], counts.calls)
            yield calls
            yield _counter(families.CONNECTIONS_ACCEPTED, [((), counts.accepted)])
            yield _counter(families.CONNECTIONS_CLOSED, (((reason,), n) for reason, n in list(counts.closed.items())))

    def _changes(self, entries: Iterable[VersionStatus]) -> Iterator[Metric]:
        # A rate sees the first failure only of a counter that was there before.
        loaded = {(e.name, version) for e in entries if e.alive is not None for version in (e.version, "")}
        known = [(*each, reason) for each in sorted(loaded) for reason in KINDS]
        yield _counter(families.SWAPS, self._manager.swaps.snapshot().items())
        failures = {**dict.fromkeys(known, 0), **self._manager.failures.snapshot()}
        yield _counter(families.LOAD_FAILURES, failures.items())

    def _shadows(self) -> Iterator[Metric]:
        requests, largest = families.SHADOW_REQUESTS.begun(), families.SHADOW_LARGEST.begun()
        classes = families.SHADOW_CLASSES.begun()
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
    requests, duration, stage = families.REQUESTS.begun(), families.DURATION.begun(), families.STAGE.begun()
    batch_rows, padding = families.BATCH_ROWS.begun(), families.PADDING.begun()
    in_flight, load, watched = families.IN_FLIGHT.begun(), families.LOAD.begun(), families.WATCHED.begun()
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
                padding.add_metric(values, *metrics.padding.buckets(1000))
                in_flight.add_metric(values, metrics.in_flight)
                load.add_metric(values, metrics.load_seconds)
                for outcome, count in metrics.rows_watched.items():
                    watched.add_metric([*values, outcome], count)
    yield from (requests, duration, stage, batch_rows, padding, in_flight, load, watched)


def _states(entries: Iterable[VersionStatus]) -> Iterator[Metric]:
    depth, size, state = families.QUEUE_DEPTH.begun(), families.QUEUE_BYTES.begun(), families.STATE.begun()
    stood_in, touching = families.BROKEN.begun(), families.ROWS_TOUCH.begun()
    for entry in entries:
        values = [entry.name, entry.version, entry.backend]
        state.add_metric([*values, str(entry.verified).lower(), entry.state], 1)
        if entry.alive is not None:
            depth.add_metric(values, entry.depth)
            size.add_metric(values, entry.queue_bytes)
            touching.add_metric(values, int(bool(entry.touching)))
            if entry.backend not in entry.broken:
                stood_in.add_metric(values, 0)
        for broken in entry.broken:
            stood_in.add_metric([entry.name, entry.version, broken], 1)
    yield from (depth, size, state, stood_in, touching)


def _sequences(entries: Iterable[VersionStatus]) -> Iterator[Metric]:
    """Those of stateful versions; where there are none, nothing."""
    live, size, held = families.SEQUENCES_LIVE.begun(), families.SEQUENCE_BYTES.begun(), families.STEPS_HELD.begun()
    started, ended = families.SEQUENCES_STARTED.begun(), families.SEQUENCES_ENDED.begun()
    restored = families.SEQUENCES_RESTORED.begun()
    steps, repeated = families.SEQUENCE_STEPS.begun(), families.STEPS_REPEATED.begun()
    refused = families.STEPS_REFUSED.begun()
    for entry in entries:
        if (status := entry.sequences) is None:
            continue
        values, counts = [entry.name, entry.version], status.counts
        live.add_metric(values, status.live)
        size.add_metric(values, status.state_bytes)
        held.add_metric(values, status.held)
        started.add_metric(values, counts.starts)
        restored.add_metric(values, counts.restored)
        steps.add_metric(values, counts.steps)
        repeated.add_metric(values, counts.repeats)
        for reason, count in counts.ended.items():
            ended.add_metric([*values, reason], count)
        for reason, count in counts.refused.items():
            refused.add_metric([*values, reason], count)
    if live.samples:
        yield from (live, size, held, started, restored, ended, steps, repeated, refused)


def _store(counts: StoreCounts) -> Iterator[Metric]:
    """What has become of the sequences that are written."""
    for family, count in (
        (families.STORE_WRITES, counts.transactions),
        (families.STORE_RECORDS, counts.rows),
        (families.STORE_BYTES, counts.bytes),
        (families.STORE_SECONDS, counts.seconds),
        (families.STORE_FAILURES, counts.failures),
        (families.STORE_DAMAGED, counts.damaged),
    ):
        yield _counter(family, [((), count)])
    failing = families.STORE_FAILING.begun()
    failing.add_metric([], counts.failing)
    yield failing


def _measured(entries: Iterable[VersionStatus]) -> Iterator[Metric]:
    """What the choice of a backend was made by, where there was one."""
    call = families.BACKEND_CALL.begun()
    for entry in entries:
        for one in entry.measured:
            place = one.candidate
            for rows, seconds in one.p50_seconds.items():
                values = [entry.name, entry.version, place.backend, place.device, str(place.threads), str(rows)]
                call.add_metric(values, seconds)
    if call.samples:
        yield call


def _counter(
    family: families.Family[CounterMetricFamily], series: Iterable[tuple[tuple[str, ...], float]]
) -> CounterMetricFamily:
    shown = family.begun()
    for values, count in series:
        shown.add_metric(list(values), count)
    return shown
