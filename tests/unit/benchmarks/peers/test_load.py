from __future__ import annotations

from benchmarks.peers.load import CLOSED, GROUPS, LOADS, PERF, takes
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
