"""How the servers of tests are started, and what they tell beside their answers: their metrics and their log."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from serving.launch import LaunchedServer

FAKE = ("--backend", "fake")
EXPLICIT = (*FAKE, "--model-control-mode", "explicit")
EVERYTHING = (*EXPLICIT, "--load-model", "*")
POLL = (*FAKE, "--model-control-mode", "poll", "--repository-poll-secs", "0.05")


def metric(server: LaunchedServer, name: str, **labels: str) -> float:
    """One series of the server's /metrics."""
    for family in text_string_to_metric_families(server.metrics()):
        for sample in family.samples:
            if sample.name == f"lstm_serving_{name}" and labels.items() <= sample.labels.items():
                return sample.value
    raise AssertionError(f"/metrics has no {name} with {labels}")


def swaps(server: LaunchedServer) -> dict[tuple[str, str, str], float]:
    """How often another backend began to answer: from, to and reason."""
    return {
        (sample.labels["from"], sample.labels["to"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(server.metrics())
        for sample in family.samples
        if sample.name == "lstm_serving_backend_swaps_total"
    }


def until(condition: Callable[[], bool], told: Callable[[], str] = lambda: "it never came true") -> None:
    """Asks again until it holds, or fails with what is told; the limit is for a broken server, not for a slow one."""
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, told()
        time.sleep(0.005)  # leaves the processor to the server


def logged(server: LaunchedServer, words: str) -> int:
    """How many records of the log have these words so far; it comes through a pipe, later than answers do."""
    return len([entry for entry in server.log() if words in entry["message"]])
