"""The results as JSON and as CSV, for programs and for spreadsheets.

In the JSON a figure that does not exist is null, never 0; a run in which nothing was answered has no latency.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from loadtest.result import Result
from loadtest.target import STAGES

FORMAT_VERSION = 1
_LATENCIES = ("p50", "p90", "p95", "p99", "p999", "max", "mean")
# Empty where the load was not one of sequences.
_SEQUENCES = (
    *("steps", "step_size", "every_seconds", "sequences_started", "sequences_finished", "sequences_cut_short"),
    *("sequences_given_up", "messages_resent", "sequences_compared", "wrong_continuations"),
)
_SETTING = ("mode", "level", "arrivals", "streams", "rows", "model", "version", "server", "duration_seconds")


def to_json(results: Sequence[Result], search: Any = None) -> str:
    """All runs and, if there was one, the search. Latencies in seconds."""
    document: dict[str, Any] = {"format_version": FORMAT_VERSION, "runs": [result.to_json() for result in results]}
    if search is not None:
        document["search"] = search
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def to_csv(results: Sequence[Result]) -> str:
    """One line for each run; errors as `CODE=count` with spaces between; empty where there is no figure."""
    head = [*_SETTING, "sent", "succeeded", "failed", "throughput_per_second"]
    head += [f"latency_{name}_seconds" for name in _LATENCIES]
    head += [f"server_{stage}_seconds" for stage in STAGES]
    head += ["errors", "client_saturated", *_SEQUENCES]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for result in results:
        server = result.server_seconds or {}
        writer.writerow(
            [
                *(getattr(result.setting, name) for name in _SETTING),
                *(result.sent, result.succeeded, result.failed, result.throughput_per_second),
                *(result.latency_seconds[name] for name in _LATENCIES),
                *(server.get(stage) for stage in STAGES),
                " ".join(f"{code}={count}" for code, count in result.errors.items()),
                str(result.saturated).lower(),
                *_of_sequences(result),
            ]
        )
    return text.getvalue()


def _of_sequences(result: Result) -> list[Any]:
    counts, setting = result.sequences, result.setting
    if counts is None:
        return [None] * len(_SEQUENCES)
    return [
        *(setting.steps or None, setting.step_size, setting.every_seconds or None),
        *(counts[name] for name in ("started", "finished", "cut_short")),
        *(sum(counts[name].values()) for name in ("given_up", "resent")),
        *(counts[name] for name in ("compared", "wrong_continuations")),
    ]
