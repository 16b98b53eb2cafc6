"""What a scrape shows: counts, states, broken backends, swaps, failures and shadows, under the names that dashboards use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from serving.backends.base import Candidate, Measured
from serving.edge.edges import Chosen
from serving.edge.prometheus import Collector
from serving.lifecycle.comparison import ShadowCounts
from serving.lifecycle.load_failures import KINDS, LoadFailures
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.statuses import VersionStatus
from serving.lifecycle.swaps import Swap
from serving.protocol.statistics import model_statistics
from serving.telemetry.counters import StoreCounts
from serving.telemetry.timeline import STAGES
from tests.support import fake_models
from tests.support.counting import counted, counted_before
from tests.support.managed import managing

READY = VersionStatus(name="m", version="2", state="READY", backend="fake", verified=True, alive=True)


@dataclasses.dataclass
class Following:
    """As much of a shadow as a scrape sees."""

    target: str
    counts: Mapping[str, ShadowCounts]


class Known:
    """As much of a manager as a scrape asks."""

    def __init__(
        self,
        *entries: VersionStatus,
        swaps: Mapping[Swap, int] | None = None,
        shadows: list[tuple[str, str, Following]] | None = None,
        store: StoreCounts | None = None,
    ) -> None:
        self.store = store
        self.failures = LoadFailures()
        self.swaps = SimpleNamespace(snapshot=lambda: dict(swaps or {}))
        self._entries = entries
        self._shadows = shadows or []

    def entries(self) -> list[VersionStatus]:
        return list(self._entries)

    def shadows(self) -> list[tuple[str, str, Following]]:
        return self._shadows


class Scrape:
    """What one scrape shows, by the names without the prefix that they share."""

    def __init__(self, known: Known | ModelManager, refused: Mapping[str, int] | None = None) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Collector(cast(ModelManager, known), refused or {}, Chosen("nghttp2", "0.3.0")))

    def value(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"lstm_serving_{name}", labels)

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        """Every series of a name, by the values of its labels in the order of the labels' names."""
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if sample.name == f"lstm_serving_{name}"
        }

    def names(self) -> set[str]:
        return {sample.name for family in self._registry.collect() for sample in family.samples}


def test_counts_agree_with_model_statistics() -> None:
    metrics = counted()
    statistics = model_statistics("m", "2", [metrics])
    stats = statistics.inference_stats
    by_stage = [stats.compute_input, stats.queue, stats.compute_infer, stats.compute_output]
    scrape = Scrape(Known(dataclasses.replace(READY, counts={"fake": metrics})))
    labels = {"model": "m", "version": "2", "backend": "fake"}
    assert scrape.value("requests_total", **labels, outcome="success") == stats.success.count
    assert scrape.value("requests_total", **labels, outcome="invalid") == stats.fail.count
    assert scrape.value("request_duration_seconds_sum", **labels) == pytest.approx(stats.success.ns / 1e9)
    for stage, duration in zip(STAGES, by_stage, strict=True):
        assert scrape.value("stage_duration_seconds_sum", **labels, stage=stage) == pytest.approx(duration.ns / 1e9)
        assert scrape.value("stage_duration_seconds_count", **labels, stage=stage) == duration.count
    assert scrape.value("batch_rows_sum", **labels) == statistics.inference_count
    assert scrape.value("batch_rows_count", **labels) == statistics.execution_count
    assert scrape.value("requests_in_flight", **labels) == 1


def test_the_counts_of_a_swapped_backend_stay() -> None:
    scrape = Scrape(Known(dataclasses.replace(READY, counts={"fake": counted(), "old": counted_before()})))
    labels = {"model": "m", "version": "2", "outcome": "success"}
    assert scrape.value("requests_total", backend="fake", **labels) == 2
    assert scrape.value("requests_total", backend="old", **labels) == 1


def test_a_version_that_serves_shows_its_queue_and_what_its_backend_was_chosen_by() -> None:
    measured = [Measured(Candidate("fake", "cpu", 1), {8: 5e-5}), Measured(Candidate("other", "cpu", 2), {1: 0.25})]
    scrape = Scrape(Known(dataclasses.replace(READY, depth=5, measured=measured)))
    assert scrape.value("queue_depth", model="m", version="2", backend="fake") == 5
    assert scrape.series("backend_call_seconds") == {  # backend, device, model, rows, threads, version
        ("fake", "cpu", "m", "8", "1", "2"): 5e-5,
        ("other", "cpu", "m", "1", "2", "2"): 0.25,
    }


def test_a_version_that_is_not_loaded_shows_its_state_alone() -> None:
    scrape = Scrape(Known(VersionStatus(name="m", version="1", state="UNAVAILABLE")))
    assert scrape.names() == {"lstm_serving_model_state", "lstm_serving_edge_info"}
    assert scrape.series("model_state") == {("", "m", "UNAVAILABLE", "false", "1"): 1}


@pytest.mark.parametrize(
    ("alive", "broken", "shown"),
    [
        (True, (), {"fake": 0}),
        (True, ("onnx_runtime",), {"fake": 0, "onnx_runtime": 1}),
        (True, ("fake", "onnx_runtime"), {"fake": 1, "onnx_runtime": 1}),
        (False, (), {"fake": 0}),
        (None, (), {}),
        (None, ("onnx_runtime",), {"onnx_runtime": 1}),
    ],
)
def test_broken_backends_are_shown_beside_the_one_that_answers(
    alive: bool | None, broken: tuple[str, ...], shown: dict[str, float]
) -> None:
    scrape = Scrape(Known(dataclasses.replace(READY, alive=alive, broken=broken)))
    assert scrape.series("backend_broken") == {(backend, "m", "2"): value for backend, value in shown.items()}


def test_swaps_are_counted_by_where_from_where_to_and_why() -> None:
    swap = ("m", "2", "fake/cpu", "onnx_runtime/cpu", "requested")
    shown = Scrape(Known(READY, swaps={swap: 3})).series("backend_swaps_total")
    assert shown == {("fake/cpu", "m", "requested", "onnx_runtime/cpu", "2"): 3}  # from, model, reason, to, version


def test_load_failures_are_counted_from_zero_for_what_is_loaded() -> None:
    known = Known(READY, VersionStatus(name="absent", version="1", state="UNAVAILABLE"))
    known.failures.count("m", "2", KINDS[0])
    known.failures.count("absent", "1", KINDS[-1])
    counted_from_zero = {("m", reason, version): 0 for reason in KINDS for version in ("2", "")}
    shown = Scrape(known).series("model_load_failures_total")
    assert shown == counted_from_zero | {("m", KINDS[0], "2"): 1, ("absent", KINDS[-1], "1"): 1}


def test_refused_calls_are_counted_by_code() -> None:
    scrape = Scrape(Known(), {"NOT_FOUND": 3, "UNAVAILABLE": 0})
    assert scrape.series("requests_refused_total") == {("NOT_FOUND",): 3, ("UNAVAILABLE",): 0}


def test_a_shadow_is_shown_for_each_version_that_it_follows() -> None:
    first, second = ShadowCounts(), ShadowCounts()
    first.compared(0.25, [True, False, True])
    first.ended("dropped")
    shadow = Following("3/fake", {"1": first, "2": second})
    scrape = Scrape(Known(READY, shadows=[("m", "1", shadow), ("m", "2", shadow)]))
    labels = {"model": "m", "version": "1", "target": "3/fake"}
    assert scrape.value("shadow_requests_total", **labels, outcome="compared") == 1
    assert scrape.value("shadow_requests_total", **labels, outcome="dropped") == 1
    assert scrape.value("shadow_requests_total", **labels, outcome="failed") == 0
    assert scrape.value("shadow_largest_difference", **labels) == 0.25
    assert scrape.value("shadow_classes_total", **labels, agree="true") == 2
    assert scrape.value("shadow_classes_total", **labels, agree="false") == 1
    labels["version"] = "2"
    assert scrape.value("shadow_requests_total", **labels, outcome="compared") == 0
    assert scrape.value("shadow_largest_difference", **labels) == 0


def test_without_a_shadow_nothing_is_said_of_shadows() -> None:
    assert not [name for name in Scrape(Known(READY)).names() if "shadow" in name]


@pytest.mark.parametrize("unloaded", [True, False])
def test_what_a_scrape_has_seen_does_not_change_when_a_version_is_removed(tmp_path: Path, unloaded: bool) -> None:
    """A scrape takes its time, and an unload does not wait for it."""
    fake_models.write(tmp_path)
    manager = managing(tmp_path)
    seen = manager.entries()
    (status,) = seen
    before = dataclasses.asdict(dataclasses.replace(status, counts={}))
    assert (status.state, status.backend, status.alive) == ("READY", "fake", True)
    with manager.loading("fake") as model:
        manager.remove(model, "1", unloaded=unloaded)
    assert dataclasses.asdict(dataclasses.replace(status, counts={})) == before
    assert list(status.counts) == ["fake"]
    late = Scrape(Known(*seen))
    assert late.series("model_state") == {("fake", "fake", "READY", "true", "1"): 1}
    assert late.value("requests_in_flight", model="fake", version="1", backend="fake") == 0
    assert manager.close(10)


def test_a_real_manager_is_scraped_before_and_after_an_unload(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    manager = managing(tmp_path)
    scrape = Scrape(manager)
    assert scrape.series("model_state") == {("fake", "fake", "READY", "true", "1"): 1}
    with manager.loading("fake") as model:
        manager.remove(model, "1", unloaded=True)
    assert manager.close(10)
    ((_, name, state, _, version),) = scrape.series("model_state")
    assert (name, version) == ("fake", "1")
    assert state in ("UNLOADING", "UNAVAILABLE")


def test_what_is_written_of_sequences_is_told_where_it_is() -> None:
    counts = StoreCounts(transactions=3, rows=12, bytes=4096, failures=2, seconds=0.5, failing=True, damaged=1)
    told = Scrape(Known(store=counts))
    names = (
        "writes_total",
        "records_total",
        "bytes_total",
        "failures_total",
        "seconds_total",
        "failing",
        "damaged_total",
    )
    assert [told.value(f"sequence_store_{name}") for name in names] == [3, 12, 4096, 2, 0.5, 1, 1]
    assert Scrape(Known()).value("sequence_store_writes_total") is None
