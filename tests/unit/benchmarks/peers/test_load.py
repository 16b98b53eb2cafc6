from __future__ import annotations

import pytest

from benchmarks.peers.load import (
    CLOSED,
    GROUPS,
    IN_FLIGHT,
    LENGTHS,
    LOADS,
    MUTUAL_TLS,
    OPEN,
    OWN_LENGTHS,
    PERF,
    PLAIN,
    RATE,
    STREAMS,
    TLS,
    Load,
    takes,
)
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, PUBLIC, TRITON


def test_this_server_and_triton_get_all_loads() -> None:
    assert all(takes(name, load) for name in (OURS, TRITON) for load in LOADS)


def test_mlserver_is_not_asked_by_perf_analyzer() -> None:
    clients = {load.client for load in LOADS if takes(MLSERVER, load)}
    assert CLOSED in clients
    assert PERF not in clients


@pytest.mark.parametrize("name", [EDGE, FLOOR])
def test_a_constant_is_asked_by_both_clients_and_for_nothing_else(name: str) -> None:
    taken = [load for load in LOADS if takes(name, load)]
    assert {load.client for load in taken} == {CLOSED, PERF}
    assert {load.group for load in taken} == {GROUPS[0]}


def test_the_public_edge_is_asked_by_both_clients_with_one_and_with_64_in_flight() -> None:
    taken = [load for load in LOADS if takes(PUBLIC, load)]
    assert taken == [Load(client, IN_FLIGHT, count) for client in (CLOSED, PERF) for count in (1, 64)]


def test_what_a_server_must_speak() -> None:
    assert {load.group: load.connection for load in LOADS if load.connection != PLAIN} == {
        TLS: TLS,
        MUTUAL_TLS: MUTUAL_TLS,
    }


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
        (Load(CLOSED, MUTUAL_TLS, 64), "closed loop, 64 in flight, mutual TLS"),
        (Load(OPEN, RATE, 0), "open loop, 4000/s"),
    ],
)
def test_what_a_load_is_called(load: Load, title: str) -> None:
    assert load.title(4000.0) == title
