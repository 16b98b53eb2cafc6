"""From counts to results, and from results to table, files and page."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest

from loadtest.calls import Answer
from loadtest.load import Sends
from loadtest.progress import Progress
from loadtest.recorder import Recorder
from loadtest.report import html_page, json_csv, plots, table
from loadtest.result import COORDINATED_OMISSION, Result, Setting, summarise

SECOND = 10**9


def result(
    *,
    level: float = 100,
    mode: str = "open",
    errors: int = 0,
    slow: int = 0,
    sends: Sends | None = None,
    answered_per_window: int = 20,
    **changes: Any,
) -> Result:
    """A run of 60 s: `answered_per_window` requests/s of 1 ms each, of which the last `slow` take half a second."""
    recorder = Recorder(0, 60 * SECOND)
    total = 60 * answered_per_window
    for number in range(total):
        started = number * SECOND // answered_per_window
        taken = SECOND // 2 if number >= total - slow else SECOND // 1000
        recorder.add(Answer(started, 0, "", None), started + taken)
    for _ in range(errors):
        recorder.add(Answer(1, 14, "full <now>", None), 2)
    setting = Setting(
        mode=mode,
        level=level,
        duration_seconds=60,
        warm_up_seconds=1,
        timeout_seconds=10,
        model="m<1>",
        version="",
        server="s 1",
        rows=1,
        arrivals="poisson" if mode == "open" else None,
    )
    fields: dict[str, Any] = {
        "measured_seconds": 60.0,
        "cpu_seconds": 6.0,
        "server_seconds": None,
        "interrupted": False,
        "version": "7",
        **changes,
    }
    made = sends or Sends(sent=total + errors)
    return summarise(setting, recorder, made, code_names={14: "UNAVAILABLE"}, **fields)


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


def test_the_json_is_json_also_where_nothing_was_answered() -> None:
    document = json.loads(json_csv.to_json([result(), result(answered_per_window=0, errors=1)], {"rate": 5}))
    first, second = document["runs"]
    assert (first["mode"], first["level"], first["offered"], first["model"], first["version"]) == (
        *("open", 100, 100, "m<1>", "7"),
    )
    assert set(first["latency_seconds"]) == {"p50", "p90", "p95", "p99", "p999", "max", "mean"}
    assert set(second["latency_seconds"].values()) == {None}
    assert second["errors"] == {"UNAVAILABLE": 1}
    assert document["search"] == {"rate": 5}
    assert json.loads(json_csv.to_json([result(mode="closed")]))["runs"][0]["offered"] is None


def test_the_csv_has_a_line_for_each_run() -> None:
    first, second = csv.DictReader(json_csv.to_csv([result(errors=2), result(answered_per_window=0)]).splitlines())
    assert first["errors"] == "UNAVAILABLE=2"
    assert float(first["latency_p50_seconds"]) == pytest.approx(0.001, rel=1e-3)
    assert second["latency_p50_seconds"] == ""


def test_the_page_needs_nothing_else_and_escapes_names() -> None:
    text = html_page.render([result(), result(level=200, slow=15, errors=1)], "found < 3")
    assert "found &lt; 3" in text
    assert text.count("<svg") == 4
    assert "m&lt;1&gt;" in text
    assert "m<1>" not in text
    assert "full &lt;now&gt;" in text
    assert "http" not in text
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_one_run_has_no_plot_against_load_and_none_has_no_plot_at_all() -> None:
    assert html_page.render([result()]).count("<svg") == 2
    assert html_page.render([result(answered_per_window=0, errors=1)]).count("<svg") == 0
    assert "nothing was measured" in html_page.render([])


@pytest.mark.parametrize("values", [[0.3, 700.0], [5.0, 5.0], [1.0, 1.1], [1e-3, 1e5], [3.1, 3.3]])
def test_axes_hold_their_values(values: list[float]) -> None:
    for axis in (plots.log_axis("a", values), plots.linear_axis("a", values)):
        assert axis.low <= min(values) <= max(values) <= axis.high
        assert len(axis.ticks) >= 2
        assert [axis.share(axis.low), axis.share(axis.high)] == [0, 1]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_run_that_ends_leaves_one_line(stream: io.StringIO) -> None:
    made = result(errors=2)
    progress = Progress(stream)
    progress.begin(made.setting)
    progress.watch(30.5, 600)
    progress.end(made)
    progress.begin(made.setting)
    progress.end(None)
    line = "100/s: 20.0 requests/s, p50 1 ms, p99 1 ms, 2 failed\n"
    assert line in stream.getvalue()
    assert ("600 answered" in stream.getvalue()) == stream.isatty()
    if not stream.isatty():
        assert stream.getvalue() == line


def test_nines() -> None:
    assert [plots.nines(p) for p in (0, 90, 99, 100)] == pytest.approx([0, 1, 2, math.inf])
    assert plots.nines_axis("p", 50).ticks[-1] == (1.0, "90")
