"""The real Triton without a container: `tritonserver` and its Python backend, out of the wheel of pytriton.

Triton does not pass PYTHONPATH on to its Python models; what they can import is decided by the `python3` that comes
first in PATH. Beside numpy 2 this Python backend answers every request with success and no bytes, so whoever measures
it must look at the answers.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import grpc

from protos import grpc_service_pb2 as pb

PYTRITON, NUMPY = "nvidia-pytriton==0.7.0", "numpy>=1.26,<2"
CONFIG = """\
backend: "python"
max_batch_size: 64
dynamic_batching { }
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 8 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { count: 1 kind: KIND_CPU }
"""
_MODEL = Path(__file__).with_name("triton_model.py")
_READY_SECONDS = 60.0


def install(environment: Path) -> None:
    """Makes Triton's environment, once: the wheel alone, a numpy that it knows, and ONNX Runtime as it is in this one.

    Raises `CalledProcessError` with pip's words on standard error where a package cannot be had.
    """
    packages = [NUMPY, f"onnxruntime=={importlib.metadata.version('onnxruntime')}"]
    wanted = " ".join([PYTRITON, *packages])
    done = environment / ".done"
    if done.is_file() and done.read_text() == wanted:
        return
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    pip = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True)
    subprocess.run([*pip, "--no-deps", PYTRITON], check=True)
    done.write_text(wanted)


class TritonServer:
    """A `tritonserver` of its own on free ports that serves one ONNX file by its Python backend; a context manager.

    Raises `RuntimeError` with the end of Triton's log if it is not ready in time.
    """

    def __init__(self, environment: Path, name: str, onnx_file: Path) -> None:
        packages = next(environment.glob("lib/python3.*/site-packages"))
        triton = packages / "pytriton/tritonserver"
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        backend = folder / "backends/python"
        shutil.copytree(triton / "backends/python", backend)
        stub = triton / f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(stub / "triton_python_backend_stub", backend)
        version = folder / "models" / name / "1"
        version.mkdir(parents=True)
        shutil.copy(onnx_file, version / "model.onnx")
        shutil.copy(_MODEL, version / "model.py")
        (version.parent / "config.pbtxt").write_text(CONFIG)
        grpc_port, metrics_port = _free_ports(2)
        self.address = f"127.0.0.1:{grpc_port}"
        self._log = folder / "log"
        libraries = [str(packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        environ = {
            **os.environ,
            "PATH": f"{environment.absolute() / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": ":".join(libraries),
        }
        command = [str(triton / "bin/tritonserver"), "--model-repository", str(folder / "models")]
        command += ["--backend-directory", str(folder / "backends"), "--allow-http", "false"]
        command += ["--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port), "--metrics-port", str(metrics_port)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_for(name)
        except RuntimeError:
            self.__exit__()
            raise

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()

    def _wait_for(self, name: str) -> None:
        limit = time.monotonic() + _READY_SECONDS
        with grpc.insecure_channel(self.address) as channel:
            ask = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelReady",
                lambda message: message.SerializeToString(),
                pb.ModelReadyResponse.FromString,
            )
            while self.process.poll() is None and time.monotonic() < limit:
                try:
                    if ask(pb.ModelReadyRequest(name=name), timeout=1, wait_for_ready=True).ready:
                        return
                except grpc.RpcError:
                    continue
        words = self._log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"Triton is not ready (exit code {self.process.poll()}); its last words:\n{words}")


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and its children have used, those that have ended included (Linux)."""
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # a process that has just ended
            fields = file.read_text().rpartition(")")[2].split()
            child = int(file.parent.name)
            used[child] = sum(map(int, fields[11:15]))  # utime, stime, and both of children that have ended
            children.setdefault(int(fields[1]), []).append(child)
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return sum(used[member] for member in family) / os.sysconf("SC_CLK_TCK")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
