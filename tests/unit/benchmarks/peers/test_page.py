from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.peers import page
from benchmarks.peers.load import CLOSED, IN_FLIGHT, LOADS, PERF, Load
from benchmarks.peers.measured import Measured
from benchmarks.peers.server import FLOOR, OURS, TRITON
from tests.support.peers import made_up


def lines(measured: Measured[Load]) -> list[str]:
    return page.render(measured, 3.0).splitlines()


def test_a_line_for_each_load_with_medians_and_the_ratio_of_a_round() -> None:
    table = lines(made_up())
    assert "| closed loop, 8 in flight | 450 | 300 | **1.50** | 1350 | 60 | 75 | **0.80** |" in table
    assert "| perf_analyzer, 8 in flight | 450 | 300 | **1.50** | - | 60 | 75 | **0.80** |" in table
    assert "| closed loop, 64 in flight, TLS | 450 | 300 | **1.50** | - | - | - | - |" in table
    assert "| closed loop, 64 in flight, lengths of their own | 450 | 300 | **1.50** | - | - | - | - |" in table
    assert "| open loop, 4000/s | 7.25 | 7.25 | **1.00** | 7.25 | - | - | - |" in table
    for heading in ("### Server CPU a request, us", "### p50, ms", "### p99, ms"):
        start = table.index(heading)
        rows = [line for line in table[start : table.index("", start + 2)] if line.startswith("| ")]
        assert len(rows) == 2 + len(LOADS)


def test_the_public_edge_has_a_table_of_its_own() -> None:
    table = lines(made_up())
    table = table[table.index("### The public edge: server CPU a request, us") :]
    table = table[: table.index("", 2)]
    assert table[2] == "|  | lstm-serve | lstm-serve, grpcio | ratio |"
    assert table[4:] == [
        f"| {client}, {count} in flight | 450 | 900 | **0.50** |" for client in (CLOSED, PERF) for count in (1, 64)
    ]


def test_what_tls_costs_more() -> None:
    assert "us: lstm-serve 0 and 20; Triton 0 and 20." in " ".join(lines(made_up()))


def test_who_keeps_up_with_the_open_loop() -> None:
    text = " ".join(lines(made_up()))
    assert "at 4000 requests a second: lstm-serve 4000, Triton 4000, MLServer 2500." in text


def test_lengths_of_their_own_by_one_length() -> None:
    assert "steps in all: lstm-serve 1.00, Triton 1.00." in " ".join(lines(made_up()))


def test_a_peer_that_fails_is_told() -> None:
    measured = made_up()
    measured.failures[FLOOR, None] = "gRPC's C++ library is not here\n(apt-get install libgrpc++-dev)"
    told = lines(measured)
    assert "- MLServer, closed loop, 64 in flight, lengths of their own: 234 of 420 requests failed" in told
    assert "- gRPC alone: gRPC's C++ library is not here (apt-get install libgrpc++-dev)" in told


def test_what_was_lost_and_where_the_client_was_at_its_end() -> None:
    measured = made_up()
    load = Load(CLOSED, IN_FLIGHT, 8)
    run = measured.figures[TRITON, load][0]
    measured.add(TRITON, load, 0, dataclasses.replace(run, failed=2, unsent=1, saturated=True))
    text = " ".join(lines(measured))
    assert "latencies may be its own: Triton, closed loop, 8 in flight." in text
    assert "could not be sent in time: Triton, closed loop, 8 in flight: 3." in text


def test_a_part_of_the_servers_has_dashes_for_the_others() -> None:
    measured: Measured[Load] = Measured(1)
    for (name, load), runs in made_up().figures.items():
        if name == OURS and load.group == IN_FLIGHT:
            measured.add(name, load, 0, runs[0])
    assert not any("The public edge" in line or "TLS cost more" in line for line in lines(measured))
    assert "| closed loop, 1 in flight | 300 | - | - | - | - | - | - |" in lines(measured)


def test_no_line_is_too_long_but_those_of_tables() -> None:
    assert max(len(line) for line in lines(made_up()) if not line.startswith(("|", "-"))) < 120


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# Mine\n\nWords.\n", f"# Mine\n\nWords.\n\n{page.MARK}\n\nfigures\n"),
        (f"# Mine\n\n{page.MARK}\n\nold\n", f"# Mine\n\n{page.MARK}\n\nfigures\n"),
    ],
)
def test_what_people_wrote_stays(before: str, after: str, tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(before)
    page.write(path, "figures\n")
    assert path.read_text() == after
