"""What a step of a sequence costs here and in the real Triton, and how many sequences can be followed in real time.

    python -m benchmarks.sequences --report docs/sequences.md
    chrt --rr 1 python -m benchmarks.sequences --real-time --report docs/sequences.md  # on a machine that others use too

The first has 64 sequences of the reference LSTM on 8 bidirectional streams, in a closed loop of one process
(`sequences_client.py`) and by perf_analyzer, against `lstm-serve` and against Triton with `sequence_batching`, both strategies,
whose Python-backend model keeps the state by correlation id (`peers/triton_sequence_model.py`) and runs the same ONNX file.
The servers take turns, and each round has its own ratio. The second sends every sequence a chunk of 32 ms in time to the
voice-activity model of silero-vad, for more and more sequences. `make bench-sequences` runs both; the first time it installs
Triton.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import itertools
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
import onnxruntime

from benchmarks import reference, sequences_client
from benchmarks.peers import perf_analyzer, triton
from benchmarks.peers.cpu import cpu_seconds
from benchmarks.peers.errors import PeerError
from benchmarks.peers.measured import Figures, Measured
from benchmarks.peers.server import OURS, Server
from benchmarks.peers.text import paragraph, ratio, row, short
from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer

ROOT = Path(__file__).parents[1]
MARKS = {
    False: "<!-- what follows is written by: make bench-sequences, what a step costs -->",
    True: "<!-- what follows is written by: make bench-sequences, in real time -->",
}
OLDEST, DIRECT = "Triton, oldest", "Triton, direct"
SEQUENCES, STREAMS = 64, 8
STEPS = (1, 24)  # of a message
CLOSED, PERF = "closed loop", "perf_analyzer"
PERF_REQUESTS = 6000
TRIES = 3
MOST = 0.6  # of Triton's CPU
FRAME, RATE, EVERY = 576, 16000, 0.032
WANTED_LIVE, WARM = 200, 20
LIVE = (50, 100, 150, 200, 225, 250, 300, 400, 500)
CONFIG = "max_batch_size: 64\nsequence_batching { }\n"
TRITONS = """\
backend: "python"
max_batch_size: 64
sequence_batching {
  max_sequence_idle_microseconds: 600000000
  STRATEGY
  control_input [
    { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } },
    { name: "END" control { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } },
    { name: "READY" control { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } },
    { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
  ]
}
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 8 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { count: 1 kind: KIND_CPU }
"""
STRATEGIES = {OLDEST: "oldest { max_candidate_sequences: 1024 }", DIRECT: "direct { }"}
_CODE = Path(__file__).parent / "peers" / "triton_sequence_model.py"


@dataclasses.dataclass(frozen=True)
class Load:
    """Who sends, and how many steps a message has."""

    client: str
    steps: int

    def __str__(self) -> str:
        return f"{self.client}, {self.steps} {'step' if self.steps == 1 else 'steps'} a message"


class Bench:
    """The reference model in a repository of ours, and what the clients send."""

    def __init__(self, environments: Path, folder: Path, seconds: float) -> None:
        self.environments, self.folder, self.seconds = environments, folder, seconds
        reference.export(folder / "models", ("onnx",))
        model = folder / "models" / reference.NAME
        (model / "config.pbtxt").write_text(CONFIG)
        self._file = model / "1" / "model.onnx"

    @contextlib.contextmanager
    def serve(self, name: str) -> Iterator[Server]:
        """The server, up, and held to answer as the file does. Raises `PeerError`."""
        with self._started(name) as server:
            self._check(server)
            yield server

    def drive(self, server: Server, load: Load) -> Figures:
        """Raises `PeerError`."""
        if load.client == PERF:
            flags = [
                "--streaming",
                "--concurrency-range",
                str(SEQUENCES),
                "--sequence-length",
                str(sequences_client.LENGTH),
            ]
            flags += ["--sequence-length-variation", "0"]
            return perf_analyzer.drive(self.environments / "perf", server, flags, PERF_REQUESTS, f"x:{load.steps},8")
        payload = _request(np.random.default_rng(0).normal(size=(1, load.steps, 8)).astype(np.float32))
        counted, before = server.answered() or 0, cpu_seconds(server.pid)
        with sequences_client.ran(
            server.address, payload, self.folder, seconds=self.seconds, sequences=SEQUENCES, streams=STREAMS
        ) as told:
            used, steps = cpu_seconds(server.pid) - before, (server.answered() or 0) - counted
        if told["refused"]:
            raise PeerError(f"{told['refused']} steps were refused: {told['refusals']}")
        return Figures(
            cpu_us=used / steps * 1e6,
            requests=steps,
            per_second=told["per_second"],
            p50_ms=told["p50_ms"],
            p99_ms=told["p99_ms"],
        )

    @contextlib.contextmanager
    def _started(self, name: str) -> Iterator[Server]:
        if name == OURS:
            with LaunchedServer(self.folder / "models", "--backend", "onnx_runtime") as launched:
                yield Server(name, launched.address, launched.process.pid)
            return
        config = TRITONS.replace("STRATEGY", STRATEGIES[name])
        with triton.serve(self.environments / "triton", self._file, config=config, code=_CODE) as server:
            yield dataclasses.replace(server, name=name)

    def _check(self, server: Server) -> None:
        """Three sequences in turn, five steps each; a wrong answer may be a cheap one."""
        x = np.random.default_rng(1).normal(size=(3, 5, 8)).astype(np.float32)
        session, fresh = onnxruntime.InferenceSession(str(self._file)), np.zeros((3, 2, 64), np.float32)
        state = {"h0": fresh, "c0": fresh}
        with grpc.insecure_channel(server.address) as channel:
            ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for place in range(5):
                feeds = {"x": x[:, place : place + 1], "lengths": np.ones(3, np.int64), **state}
                y, *new = session.run(["y", "hn", "cn"], feeds)
                state = dict(zip(("h0", "c0"), new, strict=True))
                for number in range(3):
                    said = {"sequence_start": place == 0, "sequence_end": place == 4}
                    request = _request(x[number : number + 1, place : place + 1], 10**6 + number, **said)
                    answer = pb.ModelInferResponse.FromString(ask(request, timeout=10))
                    got = np.frombuffer(answer.raw_output_contents[0], np.float32)
                    if got.shape != (1,) or not np.allclose(got, y[number], rtol=1e-5, atol=1e-5):
                        raise PeerError(f"step {place} of sequence {number} is {got}, and the file answers {y[number]}")


def _request(x: np.ndarray, id: int = 0, **said: bool) -> bytes:
    request = pb.ModelInferRequest(model_name=reference.NAME, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    if id:
        request.parameters["sequence_id"].int64_param = id
    for name, so in said.items():
        request.parameters[name].bool_param = so
    return request.SerializeToString()


def campaign(bench: Bench, servers: Sequence[str], loads: Sequence[Load], rounds: int) -> Measured[Load]:
    """All loads on all servers, in turn; who fails is tried again, and written down."""
    measured: Measured[Load] = Measured(rounds)
    for number, load, name in itertools.product(range(rounds), loads, servers):
        what = f"round {number + 1}: {name}, {load}"
        for _ in range(TRIES):
            try:
                with bench.serve(name) as server:  # anew each time: this Triton may die where sequences end
                    figures = bench.drive(server, load)
            except (PeerError, RuntimeError, ProcessLookupError) as error:
                measured.failures[name, load] = str(error)
                _say(f"{what}: {error}")
                continue
            measured.add(name, load, number, figures)
            rate = f", {figures.per_second:.0f}/s" if figures.per_second else ""
            _say(f"{what}: {figures.cpu_us:.0f} us{rate}, p99 {short(figures.p99_ms)} ms")
            break
    return measured


def render(measured: Measured[Load], seconds: float, loads: Sequence[Load]) -> str:
    """The first part of the page."""
    lines = ["## What a step costs", ""]
    lines += paragraph(
        f"`make bench-sequences`: {SEQUENCES} sequences of the reference LSTM (two layers of 64) on bidirectional streams, at "
        f"most one message of each in flight. Server CPU for a message, this server's against the real Triton's with "
        f"`sequence_batching`, whose Python backend keeps the state by correlation id and runs the same ONNX file "
        f"({triton.PYTRITON}; one thread of ONNX Runtime {importlib.metadata.version('onnxruntime')} in each). *{CLOSED}* is "
        f"one process with {STREAMS} streams, {seconds:g} s a round. Medians of {measured.rounds} rounds with the servers in "
        f"turn; *ratio* is within a round, by the better of the two strategies. Python {platform.python_version()}, "
        f"{os.cpu_count()} cores shared by servers and clients. Aimed at is {MOST} at most."
    )
    names = (OURS, OLDEST, DIRECT)
    heads = [
        "server CPU a message, us",
        *names,
        "ratio",
        "p50, ms",
        "p50 of Triton, ms",
        "p99, ms",
        "p99 of Triton, ms",
    ]
    lines += [row(heads), row(["---"] * len(heads))]
    for load in loads:
        cells = [short(measured.median(name, load, lambda run: run.cpu_us)) for name in names]
        better = _better(measured, load)
        cells.append(ratio(measured.ratio((OURS, load), (better, load), lambda run: run.cpu_us)))
        for name, figure in ((OURS, "p50_ms"), (better, "p50_ms"), (OURS, "p99_ms"), (better, "p99_ms")):
            cells.append(short(measured.median(name, load, lambda run, figure=figure: getattr(run, figure))))
        lines.append(row([str(load), *cells]))
    again = sorted({name for name, load in measured.failures if (name, load) in measured.figures})
    if again:
        lines += ["", *paragraph(f"{' and '.join(again)} did not live through every run; such a run was made again.")]
    for (name, load), why in measured.failures.items():
        if (name, load) not in measured.figures:
            lines += ["", f"{name}, {load or 'at all'}: {why.splitlines()[0]}"]
    return "\n".join(lines).rstrip() + "\n"


def _better(measured: Measured[Load], load: Load) -> str:
    found = {name: measured.median(name, load, lambda run: run.cpu_us) for name in (OLDEST, DIRECT)}
    return min(found, key=lambda name: found[name] or float("inf"))


def real_time(folder: Path, seconds: float, counts: Sequence[int]) -> Mapping[int, dict[str, float]]:
    """By number of sequences what was seen, until they are more than can be followed. Raises `PeerError`."""
    file = ROOT / ".envs/silero/silero_vad/data/silero_vad.onnx"
    if not file.exists():
        raise PeerError(f"{file} is missing; `make interop-environments` fetches it")
    command = [
        sys.executable,
        "-m",
        "export",
        "import",
        str(file),
        "--shape",
        f"input:-1,{FRAME}",
        "--value",
        f"sr={RATE}",
    ]
    command += ["--stateful", "--repository", str(folder / "voices"), "--name", "vad"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    request = pb.ModelInferRequest(model_name="vad")
    request.inputs.add(name="input", datatype="FP32", shape=[1, FRAME])
    request.inputs.add(name="sr", datatype="INT64", shape=[1, 1])
    sound = np.random.default_rng(0).normal(0, 0.1, FRAME).astype(np.float32)
    request.raw_input_contents.extend([sound.tobytes(), np.int64(RATE).tobytes()])
    payload = request.SerializeToString()
    found: dict[int, dict[str, float]] = {}
    with LaunchedServer(folder / "voices", "--backend", "onnx_runtime") as server:
        for count, lasts in ((WARM, 1.0), *((count, seconds) for count in counts)):
            before = cpu_seconds(server.process.pid)
            with sequences_client.ran(
                server.address, payload, folder, seconds=lasts, sequences=count, streams=STREAMS, every=EVERY
            ) as told:
                used = cpu_seconds(server.process.pid) - before
            if count == WARM:
                continue
            if told["refused"]:
                raise PeerError(f"with {count} sequences {told['refused']} steps were refused: {told['refusals']}")
            found[count] = {**told, "cpu_us": used / told["answered"] * 1e6}
            _say(f"{count} sequences: p99 {told['p99_ms']:.1f} ms, {found[count]['cpu_us']:.0f} us")
            if told["p99_ms"] > 20 * EVERY * 1e3:
                break
    return found


def render_real_time(found: Mapping[int, Mapping[str, float]], seconds: float) -> str:
    """The second part of the page."""
    holds = [count for count, told in found.items() if told["p99_ms"] < EVERY * 1e3]
    lines = ["## In real time", ""]
    lines += paragraph(
        f"`python -m benchmarks.sequences --real-time`: the voice-activity model of silero-vad 6.2.3, a chunk of "
        f"{EVERY * 1e3:g} ms ({FRAME} samples) a message, every sequence by its own clock, all on {STREAMS} streams of "
        f"`benchmarks/sequences_client.py`, {seconds:g} s for each line. Server and client share {os.cpu_count()} "
        f"cores{_alone()}. A step is timed from when it was due. Aimed at are {WANTED_LIVE} sequences with p99 below "
        f"{EVERY * 1e3:g} ms; the most that held is {max(holds, default=0)}."
    )
    heads = [
        "sequences",
        "steps a second",
        "p50, ms",
        "p99, ms",
        "slowest, ms",
        "server CPU a step, us",
        "client CPU a step, us",
    ]
    lines += [row(heads), row(["---"] * len(heads))]
    for count, told in found.items():
        names = ("per_second", "p50_ms", "p99_ms", "most_ms", "cpu_us", "client_cpu_us")
        lines.append(row([str(count), *(short(told[name]) for name in names)]))
    return "\n".join(lines) + "\n"


def _alone() -> str:
    """Whether they had them for themselves."""
    ahead = os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO)
    return ", ahead of whatever else runs on them (`chrt --rr 1`)" if ahead else ""


def write(page: Path, part: str, *, real: bool) -> None:
    """Puts one part behind its mark; what people write before the first mark stays, and so does the other part."""
    text = page.read_text(encoding="utf-8")
    kept = {}
    for each, mark in MARKS.items():
        behind = text.partition(mark)[2]
        for other in MARKS.values():
            behind = behind.partition(other)[0]
        kept[each] = behind.strip()
    for mark in MARKS.values():
        text = text.partition(mark)[0]
    kept[real] = part.strip()
    parts = [f"{mark}\n\n{kept[each]}" for each, mark in MARKS.items() if kept[each]]
    page.write_text("\n\n".join([text.rstrip(), *parts]) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Entry point. Exit code 1 if nothing could be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--environments", type=Path, default=Path(".envs"))
    parser.add_argument("--report", type=Path, help="the page whose figures are replaced")
    parser.add_argument(
        "--real-time", action="store_true", help="how many sequences can be followed in real time instead"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="of a round, default 3; in real time of a line, default 10"
    )
    parser.add_argument("--live", type=int, nargs="+", default=LIVE, help="numbers of sequences in real time")
    parser.add_argument("--servers", nargs="+", choices=(OURS, OLDEST, DIRECT), default=(OURS, OLDEST, DIRECT))
    parser.add_argument("--clients", nargs="+", choices=(CLOSED, PERF), default=(CLOSED, PERF))
    asked = parser.parse_args()
    seconds = asked.seconds or (10.0 if asked.real_time else 3.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.real_time:
            part = render_real_time(real_time(folder, seconds, asked.live), seconds)
        else:
            environments = asked.environments.absolute()
            if set(asked.servers) != {OURS}:
                triton.install(environments / "triton")
            if PERF in asked.clients:
                perf_analyzer.install(environments / "perf", sys.executable)
            (folder / "models").mkdir()
            loads = [Load(client, steps) for client in asked.clients for steps in STEPS]
            measured = campaign(Bench(environments, folder, seconds), asked.servers, loads, asked.rounds)
            if not measured.figures:
                return 1
            part = render(measured, seconds, loads)
    if asked.report:
        write(asked.report, part, real=asked.real_time)
    print(part, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
