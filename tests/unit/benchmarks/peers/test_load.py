from __future__ import annotations

import pytest

from benchmarks.peers.load import (
    CLOSED,
    GROUPS,
    IN_FLIGHT,
    LENGTHS,
    LOADS,
    OPEN,
    OWN_LENGTHS,
    PERF,
    RATE,
    STREAMS,
    TLS,
    Load,
    takes,
)
from benchmarks.peers.server import FLOOR, MLSERVER, OURS, TRITON


def test_this_server_and_triton_get_all_loads() -> None:
    assert all(takes(name, load) for name in (OURS, TRITON) for load in LOADS)


def test_mlserver_is_not_asked_by_perf_analyzer() -> None:
    clients = {load.client for load in LOADS if takes(MLSERVER, load)}
    assert CLOSED in clients
    assert PERF not in clients


def test_a_constant_is_asked_by_both_clients_and_for_nothing_else() -> None:
    taken = [load for load in LOADS if takes(FLOOR, load)]
    assert {load.client for load in taken} == {CLOSED, PERF}
    assert {load.group for load in taken} == {GROUPS[0]}


def test_each_load_is_there_once() -> None:
    assert len(set(LOADS)) == len(LOADS)
    assert {load.group for load in LOADS} == set(GROUPS)


@pytest.mark.parametrize(
    ("load", "title"),
    [
        (Load(CLOSED, IN_FLIGHT, 8), "closed loop, 8 in flight"),
        (Load(PERF, STREAMS, 64), "perf_analyzer, 64 in flight, streams"),
        (Load(CLOSED, STREAMS, 64), "closed loop, 64 in flight, 8 streams"),
        (Load(CLOSED, LENGTHS, 64, OWN_LENGTHS), "closed loop, 64 in flight, lengths of their own"),
        (Load(CLOSED, TLS, 64), "closed loop, 64 in flight, TLS"),
        (Load(OPEN, RATE, 0), "open loop, 4000/s"),
    ],
)
def test_what_a_load_is_called(load: Load, title: str) -> None:
    assert load.title(4000.0) == title
