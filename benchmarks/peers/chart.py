"""The chart of the page: server CPU a request with 64 in flight, by both clients."""

from __future__ import annotations

from benchmarks.peers.load import CLOSED, IN_FLIGHT, MANY, PERF, Load
from benchmarks.peers.measured import Measured
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, PUBLIC, TRITON
from reference_pages.bars import Chart, Pair

REMARKS = {
    OURS: "",
    PUBLIC: "on the public grpc.server",
    TRITON: "Python backend",
    MLSERVER: "not asked by perf_analyzer",
    EDGE: "ours, answers a constant",
    FLOOR: "C++, answers a constant",
}


def drawn(measured: Measured[Load]) -> str:
    """The chart as SVG: for each server one bar for each client that measured it."""
    chart = Chart(
        title=f"Server CPU a request, {MANY} in flight, us",
        description=f"Server CPU a request with {MANY} in flight, of this server and others",
        first="asked by perf_analyzer",
        second="by a closed loop of one thread",
        told=f"one ONNX file, one thread of ONNX Runtime in each server; medians of {measured.rounds} rounds",
        left=220,
    )
    pairs = []
    for name, remark in REMARKS.items():
        first, second = (
            measured.median(name, Load(client, IN_FLIGHT, MANY), lambda run: run.cpu_us) for client in (PERF, CLOSED)
        )
        pairs.append(Pair(name, remark, first, second))
    return chart.drawn(pairs)
