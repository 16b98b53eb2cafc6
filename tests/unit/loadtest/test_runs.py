"""What is said of a search for the highest rate."""

from __future__ import annotations

import dataclasses

import pytest

from loadtest.runs import conclusion_of
from loadtest.search import Found, Trial

HELD, FAILED = Trial(100, True), Trial(200, False)


@pytest.mark.parametrize(
    ("found", "saturated", "answer"),
    [
        (
            Found(100, True, (HELD, FAILED, FAILED)),
            False,
            "the highest rate that keeps the p99 below 10 ms is 100 requests/s\n"
            "(tried: 100/s held, 200/s failed, 200/s failed)",
        ),
        (
            Found(100, False, (HELD,)),
            False,
            "the highest rate that keeps the p99 below 10 ms is 100 requests/s or more: no rate that was tried failed\n"
            "(tried: 100/s held)",
        ),
        (
            Found(None, True, (FAILED, Trial(1, False))),
            False,
            "no rate down to 1/s keeps the p99 below 10 ms\n(tried: 200/s failed, 1/s failed)",
        ),
        (
            Found(100, True, (HELD, FAILED)),
            True,
            "the highest rate that keeps the p99 below 10 ms is 100 requests/s; but beyond it the client was saturated, so "
            "this may be its limit and not the server's\n(tried: 100/s held, 200/s failed)",
        ),
    ],
    ids=["found", "unbounded", "none", "client at its limit"],
)
def test_the_conclusion_of_a_search(found: Found, saturated: bool, answer: str) -> None:
    assert conclusion_of({**dataclasses.asdict(found), "client_saturated": saturated}, 10) == answer


def test_the_conclusion_of_a_search_for_sequences() -> None:
    found = {**dataclasses.asdict(Found(100, True, (HELD, FAILED))), "client_saturated": False}
    assert conclusion_of(found, 32, sequences=True) == (
        "the highest number of sequences that keeps the p99 below 32 ms is 100\n(tried: 100 held, 200 failed)"
    )
    none = {**dataclasses.asdict(Found(None, True, (FAILED, Trial(1, False)))), "client_saturated": False}
    assert conclusion_of(none, 32, sequences=True).startswith(
        "no number of sequences down to 1 keeps the p99 below 32 ms\n"
    )
