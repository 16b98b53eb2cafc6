"""Every metric of the server: its name, type, labels, what it means, and a query that somebody has of it.

docs/reference/metrics.md is made of this table, and a scrape of it: a metric that is not here cannot be shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

PREFIX = "lstm_serving_"
LABELS = ("model", "version", "backend")
VERSION_LABELS = ("model", "version")
SHADOW_LABELS = ("model", "version", "target")

Shown = TypeVar("Shown", CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily)


@dataclasses.dataclass(frozen=True)
class Family(Generic[Shown]):
    """One metric. `name` is without the prefix, and without what Prometheus appends to the names of counters and histograms."""

    kind: type[Shown]
    name: str
    meaning: str
    labels: Sequence[str]
    query: str

    def begun(self) -> Shown:
        """The family with no series in it yet."""
        return self.kind(f"{PREFIX}{self.name}", self.meaning, labels=self.labels)


REQUESTS = Family(
    CounterMetricFamily,
    "requests",
    "Inference requests, by how they ended.",
    (*LABELS, "outcome"),
    'sum by (model) (rate(lstm_serving_requests_total{outcome="success"}[5m]))',
)
DURATION = Family(
    HistogramMetricFamily,
    "request_duration_seconds",
    "Time of an answered request inside the server, from its bytes to the answer's bytes.",
    LABELS,
    "histogram_quantile(0.99, sum by (model, le) (rate(lstm_serving_request_duration_seconds_bucket[5m])))",
)
STAGE = Family(
    HistogramMetricFamily,
    "stage_duration_seconds",
    "Time of an answered request in each stage: decode, queue, compute, encode.",
    (*LABELS, "stage"),
    "histogram_quantile(0.99, sum by (model, stage, le) (rate(lstm_serving_stage_duration_seconds_bucket[5m])))",
)
BATCH_ROWS = Family(
    HistogramMetricFamily,
    "batch_rows",
    "Rows of each computed batch.",
    LABELS,
    "rate(lstm_serving_batch_rows_sum[5m]) / rate(lstm_serving_batch_rows_count[5m])",
)
PADDING = Family(
    HistogramMetricFamily,
    "padding_ratio",
    "Share of each computed batch that is padding, added to make requests of unequal steps one length.",
    LABELS,
    "rate(lstm_serving_padding_ratio_sum[5m]) / rate(lstm_serving_padding_ratio_count[5m])",
)
IN_FLIGHT = Family(
    GaugeMetricFamily,
    "requests_in_flight",
    "Requests that have found their model and are not answered yet.",
    LABELS,
    "sum by (model) (lstm_serving_requests_in_flight)",
)
LOAD = Family(
    GaugeMetricFamily,
    "model_load_duration_seconds",
    "Time to load, verify and warm up a version.",
    LABELS,
    "max by (model, backend) (lstm_serving_model_load_duration_seconds)",
)
WATCHED = Family(
    CounterMetricFamily,
    "rows_watched",
    "Rows of batches that were computed again alone, by how that answer agreed with the one in company.",
    (*LABELS, "outcome"),
    "sum by (model, outcome) (increase(lstm_serving_rows_watched_total[1d]))",
)
QUEUE_DEPTH = Family(
    GaugeMetricFamily,
    "queue_depth",
    "Requests that wait for a batch.",
    LABELS,
    "max_over_time(lstm_serving_queue_depth[5m])",
)
QUEUE_BYTES = Family(
    GaugeMetricFamily,
    "queue_bytes",
    "Bytes in which the requests were sent that wait for a batch.",
    LABELS,
    "max_over_time(lstm_serving_queue_bytes[5m])",
)
STATE = Family(
    GaugeMetricFamily,
    "model_state",
    "1 for the state that a version is in.",
    (*LABELS, "verified", "state"),
    'max by (model, version, state) (lstm_serving_model_state{state!="READY"}) == 1',
)
BROKEN = Family(
    GaugeMetricFamily,
    "backend_broken",
    "1 while another backend answers because this one has failed.",
    LABELS,
    "max by (model, version, backend) (lstm_serving_backend_broken) == 1",
)
ROWS_TOUCH = Family(
    GaugeMetricFamily,
    "rows_touch",
    "1 once a row was answered otherwise in a batch than alone; its requests are computed one by one since.",
    LABELS,
    "lstm_serving_rows_touch == 1",
)
BACKEND_CALL = Family(
    GaugeMetricFamily,
    "backend_call_seconds",
    "Median time of a call with so many rows, as measured to choose a backend.",
    (*LABELS, "device", "threads", "rows"),
    'min by (model, backend) (lstm_serving_backend_call_seconds{rows="1"})',
)
SWAPS = Family(
    CounterMetricFamily,
    "backend_swaps",
    "Times that another backend or device began to answer for a version, and why.",
    ("model", "version", "from", "to", "reason"),
    "sum by (model, from, to, reason) (increase(lstm_serving_backend_swaps_total[1h]))",
)
LOAD_FAILURES = Family(
    CounterMetricFamily,
    "model_load_failures",
    "Loads that failed, and why; what served before serves on.",
    ("model", "version", "reason"),
    "sum by (model, version, reason) (increase(lstm_serving_model_load_failures_total[1h])) > 0 "
    "or sum by (model, version, reason) "
    "(lstm_serving_model_load_failures_total unless lstm_serving_model_load_failures_total offset 1h) > 0",
)
SEQUENCES_LIVE = Family(
    GaugeMetricFamily,
    "sequences_live",
    "Sequences of a stateful version that have begun and not ended.",
    VERSION_LABELS,
    "sum by (model, version) (lstm_serving_sequences_live)",
)
SEQUENCE_BYTES = Family(
    GaugeMetricFamily,
    "sequence_state_bytes",
    "Memory of the states of live sequences; answers that are kept for repeated steps are not counted.",
    VERSION_LABELS,
    "sum by (model) (lstm_serving_sequence_state_bytes)",
)
STEPS_HELD = Family(
    GaugeMetricFamily,
    "sequence_steps_held",
    "Steps that wait for an earlier one of their sequence, or for room for a new one.",
    VERSION_LABELS,
    "max_over_time(lstm_serving_sequence_steps_held[5m])",
)
SEQUENCES_STARTED = Family(
    CounterMetricFamily,
    "sequences_started",
    "Sequences that have begun: a START was computed.",
    VERSION_LABELS,
    "sum by (model) (rate(lstm_serving_sequences_started_total[5m]))",
)
SEQUENCES_ENDED = Family(
    CounterMetricFamily,
    "sequences_ended",
    "Sequences that have ended, and why.",
    (*VERSION_LABELS, "reason"),
    "sum by (model, reason) (increase(lstm_serving_sequences_ended_total[1h]))",
)
SEQUENCE_STEPS = Family(
    CounterMetricFamily,
    "sequence_steps",
    "Step-messages that were computed and have moved a state; request_duration_seconds has what they took.",
    VERSION_LABELS,
    "sum by (model) (rate(lstm_serving_sequence_steps_total[5m]))",
)
SEQUENCES_RESTORED = Family(
    CounterMetricFamily,
    "sequences_restored",
    "Sequences that the store held when the server started, and that go on.",
    VERSION_LABELS,
    "sum by (model, version) (lstm_serving_sequences_restored_total)",
)
STORE_WRITES = Family(
    CounterMetricFamily,
    "sequence_store_writes",
    "What was written to the store of sequences at once: the steps of a batch, or of some that gathered meanwhile.",
    (),
    "rate(lstm_serving_sequence_store_writes_total[5m])",
)
STORE_RECORDS = Family(
    CounterMetricFamily,
    "sequence_store_records",
    "Sequences that were written to the store, each with the steps that it had taken since.",
    (),
    "rate(lstm_serving_sequence_store_records_total[5m]) / rate(lstm_serving_sequence_store_writes_total[5m])",
)
STORE_BYTES = Family(
    CounterMetricFamily,
    "sequence_store_bytes",
    "Bytes of the records that were written to the store.",
    (),
    "rate(lstm_serving_sequence_store_bytes_total[5m])",
)
STORE_SECONDS = Family(
    CounterMetricFamily,
    "sequence_store_seconds",
    "How long writing to the store has taken, for which answers have waited.",
    (),
    "rate(lstm_serving_sequence_store_seconds_total[5m]) / rate(lstm_serving_sequence_store_writes_total[5m])",
)
STORE_FAILURES = Family(
    CounterMetricFamily,
    "sequence_store_failures",
    "Writes to the store that have failed; their steps were refused, and are as if they had not been.",
    (),
    "rate(lstm_serving_sequence_store_failures_total[5m])",
)
STORE_DAMAGED = Family(
    CounterMetricFamily,
    "sequence_store_damaged",
    "Sequences in the store that could not be read.",
    (),
    "lstm_serving_sequence_store_damaged_total > 0",
)
STORE_FAILING = Family(
    GaugeMetricFamily,
    "sequence_store_failing",
    "1 while the store cannot be written: the last write has failed.",
    (),
    "lstm_serving_sequence_store_failing == 1",
)
STEPS_REPEATED = Family(
    CounterMetricFamily,
    "sequence_steps_repeated",
    "Step-messages that came again and were answered as before, without being computed.",
    VERSION_LABELS,
    "sum by (model) (rate(lstm_serving_sequence_steps_repeated_total[5m]))",
)
STEPS_REFUSED = Family(
    CounterMetricFamily,
    "sequence_steps_refused",
    "Step-messages that were right as requests and not those that come next in their sequence, or without room, and why.",
    (*VERSION_LABELS, "reason"),
    "sum by (model, reason) (increase(lstm_serving_sequence_steps_refused_total[1h])) > 0",
)
SHADOW_REQUESTS = Family(
    CounterMetricFamily,
    "shadow_requests",
    "Copies of requests, by what became of them.",
    (*SHADOW_LABELS, "outcome"),
    "sum by (model, target, outcome) (rate(lstm_serving_shadow_requests_total[5m]))",
)
SHADOW_LARGEST = Family(
    GaugeMetricFamily,
    "shadow_largest_difference",
    "The largest |shadow - answer| / max(1, |answer|) so far.",
    SHADOW_LABELS,
    "max by (model, target) (lstm_serving_shadow_largest_difference)",
)
SHADOW_CLASSES = Family(
    CounterMetricFamily,
    "shadow_classes",
    "Rows whose best class the shadow agreed upon, or not.",
    (*SHADOW_LABELS, "agree"),
    'sum by (model) (rate(lstm_serving_shadow_classes_total{agree="false"}[5m]))'
    " / sum by (model) (rate(lstm_serving_shadow_classes_total[5m]))",
)
REFUSED = Family(
    CounterMetricFamily,
    "requests_refused",
    "Inference requests that found no model to answer them, and calls that the edge turned away: no valid token, a limit, no "
    "such method.",
    ("code",),
    "sum by (code) (rate(lstm_serving_requests_refused_total[5m]))",
)
EDGE = Family(
    GaugeMetricFamily,
    "edge_info",
    "1 for what speaks gRPC here: nghttp2 or grpcio, and the version of the library.",
    ("edge", "version"),
    "count by (edge, version) (lstm_serving_edge_info)",
)
CONNECTIONS = Family(
    GaugeMetricFamily,
    "connections",
    "Open connections to the gRPC port; on the edge nghttp2.",
    (),
    "lstm_serving_connections",
)
CALLS_OPEN = Family(
    GaugeMetricFamily,
    "calls_open",
    "Open calls and streams of all connections; on the edge nghttp2.",
    (),
    "lstm_serving_calls_open",
)
CONNECTIONS_ACCEPTED = Family(
    CounterMetricFamily,
    "connections_accepted",
    "Connections to the gRPC port so far; on the edge nghttp2.",
    (),
    "rate(lstm_serving_connections_accepted_total[5m])",
)
CONNECTIONS_CLOSED = Family(
    CounterMetricFamily,
    "connections_closed",
    "Connections that the server has closed, and why; on the edge nghttp2.",
    ("reason",),
    "sum by (reason) (increase(lstm_serving_connections_closed_total[1h])) > 0",
)

FAMILIES = tuple(each for each in list(globals().values()) if isinstance(each, Family))
