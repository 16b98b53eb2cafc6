"""Figures of a benchmark of peers that nobody has measured."""

from __future__ import annotations

from benchmarks.peers.load import LOADS, MUTUAL_TLS, OPEN, OWN_LENGTHS, PERF, Load, takes
from benchmarks.peers.measured import Figures, Measured
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, PUBLIC, TRITON

CPU_US = {OURS: 300.0, PUBLIC: 600.0, TRITON: 200.0, MLSERVER: 900.0, EDGE: 40.0, FLOOR: 50.0}
MUTUAL_TLS_US = 20.0  # that it costs more


def made_up() -> Measured[Load]:
    """Two rounds of every load that each server takes; MLServer answers nothing of its own lengths."""
    measured: Measured[Load] = Measured(2, rate=4000.0)
    for load in LOADS:
        for name, cost in CPU_US.items():
            if not takes(name, load):
                continue
            if name == MLSERVER and load.lengths == OWN_LENGTHS:
                measured.failures[name, load] = "234 of 420 requests failed"
                continue
            for number in range(2):
                tells = load.client != PERF or number == 0
                per_second = 2500.0 if load.client == OPEN and name == MLSERVER else 4000.0
                cpu_us = cost * (1 + number) + (MUTUAL_TLS_US if load.group == MUTUAL_TLS else 0)
                figures = Figures(cpu_us, 100, per_second, 1.5 if tells else None, 7.25 if tells else None)
                measured.add(name, load, number, figures)
    return measured
