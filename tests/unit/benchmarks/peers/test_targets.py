from __future__ import annotations

import dataclasses

import pytest

from benchmarks.peers import targets
from benchmarks.peers.load import CLOSED, IN_FLIGHT, MUTUAL_TLS, OPEN, PERF, RATE, STREAMS, Load
from benchmarks.peers.measured import Figures, Measured
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, TRITON
from tests.support.peers import made_up

MANY = Load(PERF, IN_FLIGHT, 64)


def rows(measured: Measured[Load]) -> list[str]:
    return [line for line in targets.table(measured) if line.startswith("| ")][2:]


def test_each_target_has_a_line() -> None:
    assert rows(made_up()) == [
        "| CPU a request by Triton's, 64 in flight | perf_analyzer | 0.65 | 1.5 | **missed** | 1.5 |",
        "| CPU a request by Triton's, 1 in flight | perf_analyzer | 0.75 | 1.5 | **missed** | 1.5 |",
        "| CPU a request by MLServer's, 32 in flight | closed loop | 0.25 | 0.333 | **missed** | - |",
        "| edge alone by gRPC alone, CPU a request, 64 in flight | perf_analyzer | 0.8 | 0.8 | met | 0.8 |",
        "| edge alone by gRPC alone, CPU a request, 1 in flight | perf_analyzer | 0.8 | 0.8 | met | 0.8 |",
        "| edge alone by gRPC alone, CPU a request, 64 in flight | closed loop | 1.1 | 0.8 | met | - |",
        "| edge alone by gRPC alone, CPU a request, 1 in flight | closed loop | 1.1 | 0.8 | met | - |",
        "| CPU a message on streams by Triton's unary request, 64 in flight | perf_analyzer | 0.6 | 1.5 | **missed** | 1.5 |",
        "| CPU a message on streams by our own unary request, 64 in flight | perf_analyzer | 1 | 1 | met | 1 |",
        "| p50 by Triton's, 1 in flight | perf_analyzer | 1 | 1 | met | 1 |",
        "| p99 by Triton's, at 70% of its capacity | open loop | 1 | 1 | met | - |",
        "| CPU a request more with mutual TLS than plain, 64 in flight | closed loop | 50 us | 20 us | met | - |",
    ]


@pytest.mark.parametrize(
    ("number", "one", "other", "figure"),
    [
        (0, (OURS, MANY), (TRITON, MANY), "cpu_us"),
        (2, (OURS, Load(CLOSED, IN_FLIGHT, 32)), (MLSERVER, Load(CLOSED, IN_FLIGHT, 32)), "cpu_us"),
        (3, (EDGE, MANY), (FLOOR, MANY), "cpu_us"),
        (7, (OURS, Load(PERF, STREAMS, 64)), (TRITON, MANY), "cpu_us"),
        (8, (OURS, Load(PERF, STREAMS, 64)), (OURS, MANY), "cpu_us"),
        (9, (OURS, Load(PERF, IN_FLIGHT, 1)), (TRITON, Load(PERF, IN_FLIGHT, 1)), "p50_ms"),
        (10, (OURS, Load(OPEN, RATE, 0)), (TRITON, Load(OPEN, RATE, 0)), "p99_ms"),
    ],
)
def test_what_is_compared(number: int, one: tuple[str, Load], other: tuple[str, Load], figure: str) -> None:
    measured: Measured[Load] = Measured(1)
    measured.add(*one, 0, dataclasses.replace(Figures(1.0, 10), **{figure: 30.0}))
    measured.add(*other, 0, dataclasses.replace(Figures(1.0, 10), **{figure: 40.0}))
    assert "| 0.75 | " in rows(measured)[number]


@pytest.mark.parametrize(("cost", "told"), [(149.0, "| 49 us | met |"), (151.0, "| 51 us | **missed** |")])
def test_a_target_in_microseconds(cost: float, told: str) -> None:
    measured: Measured[Load] = Measured(1)
    measured.add(OURS, Load(CLOSED, IN_FLIGHT, 64), 0, Figures(100.0, 10))
    measured.add(OURS, Load(CLOSED, MUTUAL_TLS, 64), 0, Figures(cost, 10))
    assert told in rows(measured)[-1]


def test_what_is_a_hair_beside_its_target_has_met_it() -> None:
    measured: Measured[Load] = Measured(1)
    measured.add(OURS, MANY, 0, Figures(0.3, 10))
    measured.add(OURS, Load(PERF, STREAMS, 64), 0, Figures(0.1 + 0.2, 10))
    assert "| 1 | 1 | met |" in rows(measured)[8]


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert all("| - | not measured | - |" in line for line in rows(Measured(1)))
