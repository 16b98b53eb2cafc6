"""`lstm-serve` and the real Triton under the same load, on the same machine, with the same ONNX file.

    python benchmarks/compare_triton.py --environment .envs/triton --report docs/loadtest.md

Makes Triton's environment if it is not there (some 170 MB come over the network, once), then starts the two servers in
turn and drives each with `lstm-loadtest`. A server's CPU time for a request is user and system time of its processes
over one run of the load test, warm-up included, divided by the requests that the server itself has counted. The figures
replace what stands behind the mark in the report. `make loadtest-triton` runs it; it takes some four minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import reference
import triton_server
from triton_report import OURS, TRITON, Figures, Load, Measured, render

from loadtest.endpoint import Endpoint
from loadtest.target import connect
from protos import grpc_service_pb2 as pb
from serving.launch import LaunchedServer

ROUNDS = 3
LOADS = (
    *(("--concurrency", level) for level in ("1", "8", "32")),
    *(("--rate", level) for level in ("100", "400", "1600")),
)
STALLS = (("--rate", "200"), ("--concurrency", "2"))
STALL_SECONDS = 1.0
MOST = (("--concurrency", "128"), ("--rate", "12000"))
MARK = "<!-- what follows is written by: make loadtest-triton -->"


@dataclasses.dataclass(frozen=True)
class Running:
    """A server that is up: HOST:PORT and the process to watch."""

    address: str
    pid: int


def main() -> int:
    parser = argparse.ArgumentParser(description="lstm-serve and the real Triton under the same load.")
    parser.add_argument("--environment", type=Path, required=True, help="the folder of Triton's environment")
    parser.add_argument("--report", type=Path, required=True, help="the page whose figures are replaced")
    asked = parser.parse_args()
    prose, mark, _ = asked.report.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        parser.error(f"{asked.report} has no line {MARK!r}")
    triton_server.install(asked.environment)
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        reference.export(repository, ("onnx",))
        (repository / reference.NAME / "config.pbtxt").write_text("max_batch_size: 64\ndynamic_batching { }\n")
        onnx_file = repository / reference.NAME / "1" / "model.onnx"

        @contextlib.contextmanager
        def ours() -> Iterator[Running]:
            with LaunchedServer(repository, "--backend", "onnx_runtime") as server:
                yield Running(server.address, server.process.pid)

        @contextlib.contextmanager
        def triton() -> Iterator[Running]:
            with triton_server.TritonServer(asked.environment, reference.NAME, onnx_file) as server:
                yield Running(server.address, server.process.pid)

        figures = render(compare({OURS: ours, TRITON: triton}, onnx_file))
    asked.report.write_text(f"{prose}{mark}\n\n{figures}", encoding="utf-8")
    print(figures, end="")
    return 0


def compare(servers: dict[str, Callable[[], contextlib.AbstractContextManager[Running]]], onnx_file: Path) -> Measured:
    """Runs everything, the servers in turn, in every round."""
    measured = Measured({}, {}, {})
    order = list(servers)
    for number in range(ROUNDS):
        for name in order:
            with servers[name]() as server:
                check_answer(server, onnx_file)
                for load in LOADS:
                    print(f"round {number + 1} of {ROUNDS}: {name}, {' '.join(load)}", file=sys.stderr, flush=True)
                    measured.rounds.setdefault((name, load), []).append(measure(server, load))
                for load in STALLS if number == 0 else ():
                    print(f"{name}, paused, {' '.join(load)}", file=sys.stderr, flush=True)
                    measured.stalls[name, load] = stalled(server, load)
                for load in MOST if number == 0 and name == TRITON else ():
                    print(f"{name}, the most, {' '.join(load)}", file=sys.stderr, flush=True)
                    measured.most[load] = LoadTest(server, load, "--duration", "3").result()
        order.reverse()
    return measured


class LoadTest:
    """One `lstm-loadtest` as a process of its own, as a user would start it."""

    def __init__(self, server: Running, load: Load, *flags: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._json = Path(self._folder.name) / "runs.json"
        self._command = [sys.executable, "-m", "loadtest", "--url", server.address, "--model", reference.NAME]
        self._command += [*load, *flags, "--json", str(self._json)]
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def result(self) -> dict[str, Any]:
        """Its one run. Raises `RuntimeError` if it could not measure."""
        if code := self._process.wait(60):
            raise RuntimeError(f"{' '.join(self._command)} has ended with {code}")
        (run,) = json.loads(self._json.read_text())["runs"]
        self._folder.cleanup()
        return dict(run)


def measure(server: Running, load: Load) -> Figures:
    """One run of the load test, with the server's own CPU time and its own count of requests around it."""
    with connect(Endpoint(server.address), 10) as target:
        before, cpu_before = target.account(reference.NAME, ""), triton_server.cpu_seconds(server.pid)
        run = LoadTest(server, load, "--duration", "3").result()
        after, cpu_after = target.account(reference.NAME, ""), triton_server.cpu_seconds(server.pid)
    assert before
    assert after
    return Figures(run, (cpu_after - cpu_before) / (after.answered - before.answered))


def stalled(server: Running, load: Load) -> dict[str, Any]:
    """One run of five seconds, in the middle of which the server is stopped for one."""
    with connect(Endpoint(server.address), 10) as target:
        before = target.account(reference.NAME, "")
        assert before
        test = LoadTest(server, load, "--duration", "5")
        while target.account(reference.NAME, "") == before:
            time.sleep(0.05)
    time.sleep(3)  # the warm-up, and two of the five seconds
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(STALL_SECONDS)
    os.kill(server.pid, signal.SIGCONT)
    return test.result()


def check_answer(server: Running, onnx_file: Path) -> None:
    """Raises `AssertionError` unless the server answers as the file does: a wrong answer may be a cheap one."""
    rows, hidden = 2, (reference.CONFIG.layers, reference.CONFIG.hidden)
    x = np.random.default_rng(0).normal(size=(rows, reference.STEPS, reference.CONFIG.features)).astype(np.float32)
    state = np.zeros((rows, *hidden), np.float32)
    feeds = {"x": x, "lengths": np.full(rows, reference.STEPS, np.int64), "h0": state, "c0": state}
    (wanted,) = onnxruntime.InferenceSession(str(onnx_file)).run(["y"], feeds)
    request = pb.ModelInferRequest(model_name=reference.NAME, raw_input_contents=[x.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    with grpc.insecure_channel(server.address) as channel:
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        response = pb.ModelInferResponse.FromString(send(request.SerializeToString(), timeout=10))
    (raw,) = response.raw_output_contents
    np.testing.assert_allclose(np.frombuffer(raw, np.float32).reshape(-1, 1), wanted, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    sys.exit(main())
