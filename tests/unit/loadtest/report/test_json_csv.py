"""The same runs for programs and for spreadsheets."""

from __future__ import annotations

import csv
import json

import pytest

from loadtest.report import json_csv
from tests.unit.loadtest.made_up_results import of_sequences, result


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


def test_sequences_have_their_columns_and_their_place() -> None:
    made = of_sequences(every=0.5, resent={"UNAVAILABLE": 4, "ABORTED": 1}, wrong_continuations=2)
    run = json.loads(json_csv.to_json([made]))["runs"][0]
    assert (run["mode"], run["steps"], run["step_size"], run["every_seconds"]) == ("sequences", 20, 2, 0.5)
    assert run["sequences"]["resent"] == {"UNAVAILABLE": 4, "ABORTED": 1}
    first, second = csv.DictReader(json_csv.to_csv([made, result()]).splitlines())
    assert (first["messages_resent"], first["sequences_given_up"], first["wrong_continuations"]) == ("5", "0", "2")
    assert (first["steps"], first["every_seconds"], first["sequences_finished"]) == ("20", "0.5", "60")
    assert {second["steps"], second["wrong_continuations"], second["sequences_started"]} == {""}
    assert json.loads(json_csv.to_json([result()]))["runs"][0]["sequences"] is None
