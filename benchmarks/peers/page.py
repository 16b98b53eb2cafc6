"""The figures as Markdown, and where they stand in a page: behind a mark, so that what people write there stays."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import reference
from benchmarks.peers import mlserver, targets, triton
from benchmarks.peers.campaign import SHARE_OF_TRITON
from benchmarks.peers.load import (
    CLOSED,
    IN_FLIGHT,
    LENGTHS,
    MANY,
    MUTUAL_TLS,
    ONE_LENGTH,
    OPEN,
    OWN_LENGTHS,
    RATE,
    TLS,
    Load,
)
from benchmarks.peers.measured import Figure, Measured
from benchmarks.peers.requests import LONGEST
from benchmarks.peers.server import EDGE, FLOOR, MLSERVER, OURS, PUBLIC, TRITON
from benchmarks.peers.text import paragraph, ratio, row, short

MARK = "<!-- what follows is written by: make bench-peers -->"
SERVERS = (OURS, TRITON, MLSERVER)  # those that serve a model
RATIO = ""  # a column, of the two before it
COLUMNS = (OURS, TRITON, RATIO, MLSERVER, EDGE, FLOOR, RATIO)


def write(page: Path, figures: str) -> None:
    """Replaces what stands behind the mark; a page that has none gets it at its end."""
    prose = page.read_text(encoding="utf-8").partition(MARK)[0]
    page.write_text(f"{prose.rstrip()}\n\n{MARK}\n\n{figures}", encoding="utf-8")


def render(measured: Measured[Load], seconds: float) -> str:
    """All that was measured; a loop lasted so many seconds."""
    figures: tuple[tuple[str, Figure], ...] = (
        ("Server CPU a request, us", targets.cpu),
        ("p50, ms", lambda run: run.p50_ms),
        ("p99, ms", lambda run: run.p99_ms),
    )
    loads = list(dict.fromkeys(load for _, load in measured.figures))
    parts = [
        ["## Beside Triton and MLServer", ""],
        _about(measured, seconds),
        targets.table(measured),
        *(table(measured, title, figure, loads) for title, figure in figures),
        _public_edge(measured),
        _encryption(measured),
        _open_loop(measured),
        _lengths(measured),
        _clients(measured),
        _missing(measured),
    ]
    return "\n".join(line for part in parts for line in part).rstrip() + "\n"


def table(
    measured: Measured[Load], heading: str, figure: Figure, loads: Iterable[Load], columns: Sequence[str] = COLUMNS
) -> list[str]:
    """A line for each load of which there is anything to say: medians of servers, and ratios of two of them."""
    heads = ["", *(name or "ratio" for name in columns)]
    lines = [f"### {heading}", "", row(heads), row(["---"] * len(heads))]
    for load in loads:
        cells = []
        for number, name in enumerate(columns):
            if name == RATIO:
                one, other = ((each, load) for each in columns[number - 2 : number])
                cells.append(ratio(measured.ratio(one, other, figure)))
            else:
                cells.append(short(measured.median(name, load, figure)))
        if set(cells) != {"-"}:
            lines.append(row([load.title(measured.rate), *cells]))
    return [*lines, ""]


def _about(measured: Measured[Load], seconds: float) -> list[str]:
    version = importlib.metadata.version
    lstm = reference.CONFIG
    return [
        *paragraph(
            f"The reference LSTM (two layers of {lstm.hidden}, {reference.STEPS} steps of {lstm.features} features, one "
            f"row a request) in one ONNX file; one thread of ONNX Runtime {version('onnxruntime')} in each server, "
            f"batches of at most 64 rows. This server and Triton batch without a delay. *{OURS}* has its own edge (ngh2 "
            f"{version('ngh2')}), *{PUBLIC}* the public one (`--edge grpcio`, {version('grpcio')}). Triton is out of "
            f"{triton.PYTRITON}; its C++ ONNX backend is not in there, so `benchmarks/peers/triton_model.py` "
            f"runs the file. {mlserver.PACKAGE} (`benchmarks/peers/mlserver_runtime.py`) batches only what comes within a "
            f"time, which is {mlserver.BATCH_SECONDS * 1e3:g} ms here. *{EDGE}* and *{FLOOR}* answer a constant: this "
            f"server's edge (`benchmarks/peers/edge_server.py`), and gRPC's C++ callback server "
            f"(`benchmarks/peers/floor.cc`). Python {platform.python_version()}; {os.cpu_count()} cores "
            f"({platform.machine()}), which servers and clients share: another machine gives other figures."
        ),
        *paragraph(
            f"Medians of {measured.rounds} rounds with the servers in turn, {seconds:g} s a load. *ratio* is of "
            f"the two columns before it within a round, below 1 in favour of the first. Server CPU is user and system "
            f"time of the server's processes, children included, by the requests that it has counted itself (MLServer "
            f"keeps no count: by the client's)."
        ),
        *paragraph(
            f"The shape of the client changes what is measured. The *closed loop* is lstm-loadtest, one thread that "
            f"sends the next request when an answer has come; against a fast server it is the slower side, so that the "
            f"server meets few requests at a time. *perf_analyzer* has many threads and sends in bursts. The *open "
            f"loop* is lstm-loadtest by the clock, at random, at one rate for all: {SHARE_OF_TRITON:.0%} of what Triton "
            f"does in a closed loop with {MANY} in flight."
        ),
    ]


def _public_edge(measured: Measured[Load]) -> list[str]:
    """What the same server costs on the other edge."""
    loads = [load for name, load in measured.figures if name == PUBLIC]
    heading = "The public edge: server CPU a request, us"
    return table(measured, heading, targets.cpu, loads, (OURS, PUBLIC, RATIO)) if loads else []


def _encryption(measured: Measured[Load]) -> list[str]:
    """What TLS costs more than a plain connection."""
    plain = Load(CLOSED, IN_FLIGHT, MANY)
    costs = {
        name: [
            measured.difference((name, Load(CLOSED, group, MANY)), (name, plain), targets.cpu)
            for group in (TLS, MUTUAL_TLS)
        ]
        for name in SERVERS
    }
    said = [
        f"{name} {short(tls)} and {short(mutual)}"
        for name, (tls, mutual) in costs.items()
        if tls is not None or mutual is not None
    ]
    if not said:
        return []
    return paragraph(
        f"Server CPU a request that TLS and mutual TLS cost more than a plain connection in a round, {CLOSED}, {MANY} in "
        f"flight, us: {'; '.join(said)}."
    )


def _open_loop(measured: Measured[Load]) -> list[str]:
    """Who keeps up with the rate."""
    load = Load(OPEN, RATE, 0)
    answered = {name: measured.median(name, load, lambda run: run.per_second) for name in SERVERS}
    said = [f"{name} {value:.0f}" for name, value in answered.items() if value is not None]
    if not said or measured.rate is None:
        return []
    return paragraph(
        f"Answers a second in the open loop, at {measured.rate:.0f} requests a second: {', '.join(said)}. Behind a server "
        f"that does not keep up requests wait longer and longer, so its p50 and p99 say how long the run was."
    )


def _lengths(measured: Measured[Load]) -> list[str]:
    """What lengths of their own cost against one length, the same steps in all."""
    one, own = (Load(CLOSED, LENGTHS, MANY, kind) for kind in (ONE_LENGTH, OWN_LENGTHS))
    costs = {name: measured.ratio((name, own), (name, one), targets.cpu) for name in SERVERS}
    said = [f"{name} {value:.2f}" for name, value in costs.items() if value is not None]
    if not said:
        return []
    return paragraph(
        f"Server CPU for sequences of 1 to {LONGEST} steps, drawn evenly, by that for sequences of one length with as many "
        f"steps in all: {', '.join(said)}."
    )


def _clients(measured: Measured[Load]) -> list[str]:
    """Where the client may have been what was measured, and what was lost."""
    named = {key: f"{key[0]}, {key[1].title(measured.rate)}" for key in measured.figures}
    saturated = [named[key] for key, runs in measured.figures.items() if any(run.saturated for run in runs.values())]
    lost = {named[key]: measured.total(*key, lambda run: run.failed + run.unsent) for key in named}
    lines = []
    if saturated:
        lines += paragraph(
            f"The client was late or busy all the time, latencies may be its own: {'; '.join(saturated)}."
        )
    if any(lost.values()):
        told = "; ".join(f"{name}: {count}" for name, count in lost.items() if count)
        lines += paragraph(f"Requests that failed or could not be sent in time: {told}.")
    return lines


def _missing(measured: Measured[Load]) -> list[str]:
    """What a dash stands for, and who failed."""
    lines = paragraph(
        "A dash is what a server is not given, or not told. perf_analyzer refuses MLServer, which has no ModelConfig; "
        "MLServer's port has no TLS, and its streams are of another kind; a constant has neither lengths nor a capacity. "
        "Where perf_analyzer did not exit after its last answer in any try, its latencies are lost, the CPU time is not."
    )
    if measured.failures:
        lines += ["Could not be measured:", ""]
        for (name, load), why in measured.failures.items():
            what = name if load is None else f"{name}, {load.title(measured.rate)}"
            lines.append(f"- {what}: {' '.join(why.split())[:400]}")
    return lines
