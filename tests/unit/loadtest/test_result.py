"""From counts to a result, and to what has to be said beside its figures."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadtest.calls import Answer
from loadtest.load import Sends
from loadtest.recorder import Recorder
from loadtest.result import COORDINATED_OMISSION, summarise
from tests.unit.loadtest.made_up_results import SECOND, result


def test_a_summary() -> None:
    made = result(errors=3)
    assert (made.sent, made.succeeded, made.failed) == (1203, 1200, 3)
    assert made.throughput_per_second == 20
    assert made.latency_seconds["p50"] == pytest.approx(0.001, rel=1e-3)
    assert made.errors == {"UNAVAILABLE": 3}
    assert made.setting.version == "7"
    assert not made.saturated
    assert made.notes == []
    assert len(made.over_time) == 60


def test_a_closed_loop_says_what_it_cannot_see() -> None:
    assert COORDINATED_OMISSION in result(mode="closed").notes
    assert COORDINATED_OMISSION not in result(mode="open").notes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu_seconds": 57.0}, "it used 0.95 cores"),
        ({"sends": Sends(sent=100, not_sent=5)}, "5 requests were due and never sent"),
        ({"sends": Sends(sent=100, late=2, lag_max_ns=30_000_000)}, "2 of 100 requests left more than 1 ms late"),
    ],
)
def test_a_busy_client_is_told(changes: dict[str, Any], message: str) -> None:
    made = result(**changes)
    assert made.saturated
    assert any(message in note for note in made.notes)


def test_a_server_far_behind_is_not_the_clients_fault() -> None:
    """What the bound on requests in flight holds back leaves late, or never."""
    made = result(sends=Sends(sent=100, held_back=1, not_sent=5, late=90, lag_max_ns=10**9))
    assert not made.saturated
    (note,) = made.notes
    assert note.startswith("held back: the server was --max-in-flight requests behind; 5 requests were due and never")


def test_a_tail_in_one_third_is_unsteady() -> None:
    (note,) = result(slow=15).notes
    assert note.startswith("unsteady: the thirds of the run had a p99 of 1.00, 1.00, 5")


def test_a_throughput_that_breaks_in_is_unsteady() -> None:
    recorder = Recorder(0, 60 * SECOND)
    for second in range(40):
        for _ in range(10):
            recorder.add(Answer(second * SECOND, 0, "", None), second * SECOND + 1)
    made = summarise(
        result().setting,
        recorder,
        Sends(sent=400),
        code_names={},
        measured_seconds=60,
        cpu_seconds=1,
        server_seconds=None,
        interrupted=False,
        version="",
    )
    assert "unsteady: the thirds of the run had 10, 10, 0 requests/s" in made.notes[0]


def test_a_failed_request_counts_as_endless_where_a_limit_is_searched() -> None:
    assert result().percentile_of_all(99) == pytest.approx(0.001, rel=1e-3)
    assert result(errors=11).percentile_of_all(99) == pytest.approx(0.001, rel=1e-3)
    assert result(errors=13).percentile_of_all(99) == math.inf
    assert result(sends=Sends(sent=1200, not_sent=13)).percentile_of_all(99) == math.inf
    assert result(answered_per_window=0).percentile_of_all(99) == math.inf
