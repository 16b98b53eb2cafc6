"""How soon a server is ready and how much memory it holds, for each backend, on the reference LSTM.

    python benchmarks/startup.py --onnx-only-python .envs/onnx/bin/python

Each start is a process of its own, timed from its creation to the log line that says it is ready (model loaded and
verified). Memory is the resident set (VmRSS), once ready and after some requests. ONNX Runtime is started from the
environment that has `lstm-serving[onnx]` alone, as a small deployment would; the others from this one. `make bench` runs
it; the machine should be idle.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
import reference

from protos import grpc_service_pb2 as pb
from serving import backends
from serving.launch import LaunchedServer

STARTS = 5
REQUESTS = 500
READY_SECONDS, RESIDENT_MB = 2.0, 150.0  # what a server of the onnx extra alone must keep


def main() -> int:
    parser = argparse.ArgumentParser(description="Time to ready and resident memory, for each backend.")
    parser.add_argument("--onnx-only-python", required=True, help="interpreter with the onnx extra alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        reference.export(repository)
        print(f"reference LSTM, {STARTS} starts of each, medians\n")
        print(f"{'backend':<14}{'ready, s':>10}{'resident, MB':>15}{f'after {REQUESTS} requests, MB':>26}  environment")
        kept = True
        for backend in backends.PREFERENCE:
            onnx = backend == "onnx_runtime"
            python = asked.onnx_only_python if onnx else sys.executable
            starts = [start(repository, backend, python) for _ in range(STARTS)]
            ready, idle, used = (statistics.median(values) for values in zip(*starts, strict=True))
            where = "the onnx extra alone" if onnx else "all extras"
            print(f"{backend:<14}{ready:>10.2f}{idle:>15.0f}{used:>26.0f}  {where}")
            kept &= not onnx or (ready <= READY_SECONDS and used <= RESIDENT_MB)
    verdict = "kept" if kept else "MISSED"
    print(f"\nfor the onnx extra alone: ready within {READY_SECONDS:g} s, at most {RESIDENT_MB:g} MB: {verdict}")
    return 0 if kept else 1


def start(repository: Path, backend: str, python: str) -> tuple[float, float, float]:
    """Seconds to ready; resident MB once ready, and after `REQUESTS` requests of one row."""
    began = time.monotonic()
    with LaunchedServer(repository, "--backend", backend, python=python) as server:
        ready = time.monotonic() - began
        idle = resident_mb(server.process.pid)
        x = np.zeros((1, reference.STEPS, reference.CONFIG.features), np.float32)
        request = pb.ModelInferRequest(model_name=reference.NAME, raw_input_contents=[x.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        with grpc.insecure_channel(server.address) as channel:
            send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(REQUESTS):
                send(request.SerializeToString(), timeout=30)
        return ready, idle, resident_mb(server.process.pid)


def resident_mb(pid: int) -> float:
    """The resident set of a process in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"/proc/{pid}/status has no VmRSS")


if __name__ == "__main__":
    sys.exit(main())
