"""From counts to a result, and to what has to be said beside its figures."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadtest.calls import Answer
from loadtest.load import Sends
from loadtest.recorder import Recorder
from loadtest.result import COORDINATED_OMISSION, COORDINATED_OMISSION_OF_SEQUENCES, summarise
from tests.unit.loadtest.made_up_results import SECOND, of_sequences, result


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


def test_sequences_without_a_pace_say_what_they_cannot_see() -> None:
    assert of_sequences().notes[0] == COORDINATED_OMISSION_OF_SEQUENCES
    paced = of_sequences(every=0.5)
    assert COORDINATED_OMISSION_OF_SEQUENCES not in paced.notes
    assert (of_sequences().to_json()["offered"], paced.to_json()["offered"]) == (None, 16)


@pytest.mark.parametrize(
    ("counts", "wrong", "notes"),
    [
        (
            {},
            0,
            [
                "sequences, warm-up included: 62 were started, 60 came to their end, 2 were ended early, by the end of the run",
                "wrong continuations: none of 60 (each ended in the state of a run without a break)",
            ],
        ),
        (
            {"cut_short": 0, "wrong_continuations": 3, "worst_distance": 0.25},
            3,
            [
                "sequences, warm-up included: 62 were started, 60 came to their end",
                "wrong continuations: 3 of 60 sequences ended in another state than a run without a break (the furthest 0.25 "
                "away, 1e-05 allowed)",
            ],
        ),
        (
            {
                "resent": {"UNAVAILABLE": 4, "ABORTED": 1},
                "given_up": {"INTERNAL": 2},
                "late_answers": 5,
                "compared": 0,
                "wrong_continuations": None,
                "not_compared_because": "the server names no state in its ModelConfig",
            },
            0,
            [
                "sequences, warm-up included: 62 were started, 60 came to their end, 2 were ended early, by the end of the run",
                "messages sent again, with the same number: 4 after UNAVAILABLE, 1 after ABORTED",
                "sequences given up after an error: 2 after INTERNAL",
                "5 answers came after their message had been sent again",
                "states not compared with those of a run without a break: the server names no state in its ModelConfig",
            ],
        ),
    ],
)
def test_what_became_of_sequences(counts: dict[str, Any], wrong: int, notes: list[str]) -> None:
    made = of_sequences(every=1, **counts)
    assert made.notes == notes
    assert made.wrong_continuations == wrong


def test_messages_that_wait_for_the_one_before_are_not_the_clients_fault() -> None:
    made = of_sequences(every=1, sends=Sends(sent=100, held_back=90, not_sent=5))
    assert not made.saturated
    assert made.notes[-1].startswith(
        "held back: 90 of 100 messages were due before the one before them was answered, and 5"
    )
    late = of_sequences(every=1, sends=Sends(sent=100, held_back=90, late=90, lag_max_ns=10**9))
    assert late.saturated
    assert result().wrong_continuations == 0
