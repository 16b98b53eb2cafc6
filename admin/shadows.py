"""What came of requests that the server also sent elsewhere, to compare the answers: read from its metrics, and told."""

from __future__ import annotations

import collections
import http.client
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from admin.server import AdminError, one_line
from commands.table import aligned

# The metrics of shadowed requests, and the label that splits each of them.
METRICS = {
    "lstm_serving_shadow_requests_total": "outcome",
    "lstm_serving_shadow_classes_total": "agree",
    "lstm_serving_shadow_largest_difference": "",
}
HEAD = ("version", "target", "compared", "failed", "dropped", "largest difference", "same class")


class Sample(NamedTuple):
    """One number of the metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


def read(url: str, timeout_seconds: float) -> list[Sample]:
    """All samples of the metrics at `url`. Raises `AdminError` when there are none to read."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as answer:  # noqa: S310 - the parser lets http(s) pass
            return list(parsed(answer.read().decode()))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AdminError(
            f"{url} has no metrics to read: {one_line(str(error))}; is that the server's metrics port (--metrics-url URL)?"
        ) from error


def parsed(text: str) -> Iterator[Sample]:
    """The samples in the text form of Prometheus. Raises `ValueError` for any other text."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield Sample(sample.name, sample.labels, sample.value)


def lines(samples: Iterable[Sample], model: str) -> list[dict[str, str]]:
    """An entry for each version of `model` and each target of its shadow, by the names of `HEAD`; none if it has no shadow."""
    found: dict[tuple[str, str], dict[str, float]] = collections.defaultdict(lambda: collections.defaultdict(float))
    for name, labels, value in samples:
        if name in METRICS and labels.get("model") == model:
            figure = labels.get(METRICS[name], "difference")
            found[labels.get("version", ""), labels.get("target", "")][figure] += value
    made = []
    for (version, target), figures in sorted(found.items()):
        line = [version, target, *(f"{figures[outcome]:.0f}" for outcome in ("compared", "failed", "dropped"))]
        line.append(f"{figures['difference']:.3g}" if figures["compared"] else "-")
        classes = figures["true"] + figures["false"]
        line.append(f"{100 * figures['true'] / classes:.5g} % of {classes:.0f}" if classes else "-")
        made.append(dict(zip(HEAD, line, strict=True)))
    return made


def as_table(found: Iterable[Mapping[str, str]]) -> str:
    """The same as a table."""
    return "\n".join(aligned([HEAD, *([line[name] for name in HEAD] for line in found)]))
