"""The page of the metrics: what the server counts, and what `prometheus_client` adds of the process."""

from __future__ import annotations

from typing import Any

from reference_pages.markdown import code, page, table
from serving.edge.families import FAMILIES, PREFIX, Family
from serving.edge.links import REASONS

# What every scrape has of the process itself: name, type, labels, meaning, an example of a query.
PROCESS = (
    ("process_cpu_seconds_total", "counter", "", "Processor time, user and system.", "rate({0}[5m])"),
    ("process_resident_memory_bytes", "gauge", "", "Memory that the process holds.", "max_over_time({0}[1h])"),
    ("process_virtual_memory_bytes", "gauge", "", "Addresses that the process has mapped.", "{0}"),
    ("process_start_time_seconds", "gauge", "", "When it started, in seconds since 1970.", "changes({0}[1h])"),
    ("process_open_fds", "gauge", "", "Open file descriptors.", "{0} / process_max_fds"),
    ("process_max_fds", "gauge", "", "The most file descriptors that it may open.", "{0}"),
    (
        "python_info",
        "gauge",
        "version, implementation, major, minor, patchlevel",
        "1, with the release of Python as labels.",
        "count by (version) ({0})",
    ),
    (
        "python_gc_objects_collected_total",
        "counter",
        "generation",
        "Objects that the collector freed.",
        "rate({0}[5m])",
    ),
    (
        "python_gc_objects_uncollectable_total",
        "counter",
        "generation",
        "Objects that the collector could not free.",
        "{0} > 0",
    ),
    ("python_gc_collections_total", "counter", "generation", "Times that the collector ran.", "rate({0}[5m])"),
)


def page_text() -> str:
    """The whole page."""
    return page(
        "Metrics",
        "`GET /metrics` on the metrics port (8002) answers in Prometheus' text format. Durations are in seconds; their buckets "
        "reach from 50 us to 10 s. Alerts and a dashboard that use these metrics are in `deploy/`.",
        "The clock starts when the headers of a request are there. The network comes on top; on `--edge grpcio` the clock starts "
        "when one of 256 handler threads has the request, and waiting for that comes on top too.",
        "## Of the server",
        *(
            _entry(
                names(each)[0].removesuffix("_bucket"), type_of(each), ", ".join(each.labels), each.meaning, each.query
            )
            for each in FAMILIES
        ),
        "## Why connections are closed",
        "The `reason` of `lstm_serving_connections_closed_total`. Whom the server throws out it tells in its log too, with the "
        "address, ten at once and then one every six seconds.",
        table(("reason", "meaning"), [(code(reason), meaning) for reason, meaning in REASONS.items()]),
        "## Of the process",
        *(_entry(name, kind, labels, meaning, query.format(name)) for name, kind, labels, meaning, query in PROCESS),
    )


def _entry(name: str, kind: str, labels: str, meaning: str, query: str) -> str:
    by = f" by {labels}" if labels else ""
    return f"### {name}\n\n{kind.capitalize()}{by}. {meaning}\n\n```promql\n{query}\n```"


def names(family: Family[Any]) -> tuple[str, ...]:
    """The names under which a scrape shows the family's series."""
    name, kind = f"{PREFIX}{family.name}", type_of(family)
    if kind == "histogram":
        return tuple(f"{name}{suffix}" for suffix in ("_bucket", "_count", "_sum"))
    return (f"{name}_total",) if kind == "counter" else (name,)


def type_of(family: Family[Any]) -> str:
    """What Prometheus calls its type."""
    return str(family.begun().type)
