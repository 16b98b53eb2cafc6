"""MLServer with a runtime of our own around the same ONNX file (`mlserver_runtime.py`), in one process.

It forms batches only of what arrives within a time that must be above zero, and it has neither ModelConfig nor
ModelStatistics: perf_analyzer refuses it, and its requests are counted by the client.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import child, environments
from benchmarks.peers.server import MLSERVER, MODEL, Server

PACKAGE = "mlserver==1.7.1"
BATCH_SECONDS = 0.001
_RUNTIME = Path(__file__).with_name("mlserver_runtime.py")


def install(environment: Path) -> None:
    """Makes MLServer's environment, once. Raises `PeerError`."""
    environments.make(environment, [PACKAGE, f"onnxruntime=={importlib.metadata.version('onnxruntime')}"])


@contextlib.contextmanager
def serve(environment: Path, onnx_file: Path) -> Iterator[Server]:
    """MLServer on free ports. Raises `PeerError` if it is not ready in time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(onnx_file, folder / "model.onnx")
        shutil.copy(_RUNTIME, folder)
        http_port, grpc_port, metrics_port = child.free_ports(3)
        settings = {
            "host": "127.0.0.1",
            "http_port": http_port,
            "grpc_port": grpc_port,
            "metrics_port": metrics_port,
            "parallel_workers": 0,
        }
        model = {
            "name": MODEL,
            "implementation": "mlserver_runtime.ReferenceRuntime",
            "parameters": {"uri": "model.onnx"},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1, 8]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
            "max_batch_size": 64,
            "max_batch_time": BATCH_SECONDS,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        server = Server(MLSERVER, f"127.0.0.1:{grpc_port}", 0)
        environ = {**os.environ, "PYTHONPATH": str(folder)}
        command = [str(environment.absolute() / "bin/python"), "-m", "mlserver.cli.main", "start", "."]
        with child.running(command, server.endpoint, MODEL, folder, environ) as pid:
            yield Server(server.name, server.address, pid)
