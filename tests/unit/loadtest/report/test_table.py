"""The table that is printed: its columns, and what is said below it."""

from __future__ import annotations

import pytest

from loadtest.report import table
from loadtest.result import COORDINATED_OMISSION
from tests.unit.loadtest.made_up_results import of_sequences, result


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0.0000004, "0.0004"), (0.000123456, "0.123"), (0.0123456, "12.3"), (0.1234, "123"), (12.3, "12300")],
)
def test_milliseconds(seconds: float | None, shown: str) -> None:
    assert table.milliseconds(seconds) == shown


def test_the_table() -> None:
    server = {"queue": 0.001, "compute_input": 0.0001, "compute_infer": 0.002, "compute_output": 0.00005}
    lines = table.render([result(server_seconds=server), result(level=2000, errors=2)]).splitlines()
    assert lines[0] == "m<1> version 7 on s 1: open loop, poisson arrivals, 1 row a request, 60 s a run"
    assert lines[2].split() == [*table.HEADINGS[:-1], *table.SERVER_HEADINGS, "errors"]
    assert lines[3].split()[:3] == ["100/s", "20.0", "1"]
    assert lines[3].split()[-5:] == ["1", "0.1", "2", "0.05", "0"]
    assert lines[4].split()[-6:] == ["-", "-", "-", "-", "2", "UNAVAILABLE"]
    assert lines[6].startswith("latencies in ms; queue, decode, compute and encode are the server's own means")
    assert lines[7] == "client: 4992 us of CPU a request (2000/s), so one core of it drives at least 200 requests/s"
    assert lines[8] == "* 2000/s: UNAVAILABLE: full <now>"


def test_the_table_has_no_columns_for_what_the_server_does_not_tell() -> None:
    text = table.render([result()])
    assert "queue" not in text
    assert table.legend([result(answered_per_window=0)]) == ["latencies in ms"]
    assert table.render([]) == ""


def test_what_holds_for_all_runs_is_said_once() -> None:
    assert table.notes([result(mode="closed"), result(mode="closed", level=8)]) == [COORDINATED_OMISSION]


def test_the_headline_of_sequences_says_how_they_were_driven() -> None:
    paced, last = of_sequences(every=0.032), of_sequences(steps=0, level=1)
    assert table.headline(paced) == (
        "m<1> version 7 on s 1: sequences, a message of each every 0.032 s, at most 20 messages each, 2 time steps a message, "
        "1 row a request, 60 s a run"
    )
    assert "one message after the other, all messages of their data, 2 time steps" in table.headline(last)
    assert [table.cells(each, server=False)[0] for each in (paced, last)] == ["8 sequences", "1 sequence"]
