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
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import child, environments
from benchmarks.peers.server import MODEL, TRITON, Certificate, Server

PYTRITON, NUMPY = "nvidia-pytriton==0.7.0", "numpy>=1.26,<2"
CONFIG = """\
backend: "python"
max_batch_size: 64
dynamic_batching { }
input { name: "x" data_type: TYPE_FP32 dims: [ -1, 8 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { count: 1 kind: KIND_CPU }
"""
_CODE = Path(__file__).with_name("triton_model.py")


def install(environment: Path) -> None:
    """Makes Triton's environment, once: the wheel alone, a numpy that it knows, and ONNX Runtime as it is in this one.

    Some 170 MB come over the network. Raises `PeerError`.
    """
    runtime = f"onnxruntime=={importlib.metadata.version('onnxruntime')}"
    environments.make(environment, [NUMPY, runtime], ["--no-deps", PYTRITON])


@contextlib.contextmanager
def serve(
    environment: Path,
    onnx_file: Path,
    certificate: Certificate | None = None,
    config: str = CONFIG,
    code: Path = _CODE,
) -> Iterator[Server]:
    """Triton on free ports, with one ONNX file behind its Python backend, which runs `code`.

    Raises `PeerError` if it is not ready in time.
    """
    packages = next(environment.absolute().glob("lib/python3.*/site-packages"))
    triton = packages / "pytriton/tritonserver"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        backend = folder / "backends/python"
        shutil.copytree(triton / "backends/python", backend)
        stub = triton / f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(stub / "triton_python_backend_stub", backend)
        version = folder / "models" / MODEL / "1"
        version.mkdir(parents=True)
        shutil.copy(onnx_file, version / "model.onnx")
        shutil.copy(code, version / "model.py")
        (version.parent / "config.pbtxt").write_text(config)
        grpc_port, metrics_port = child.free_ports(2)
        libraries = [str(packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        environ = {
            **os.environ,
            "PATH": f"{environment.absolute() / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": ":".join(libraries),
        }
        command = [str(triton / "bin/tritonserver"), "--model-repository", str(folder / "models")]
        command += ["--backend-directory", str(folder / "backends"), "--allow-http", "false"]
        command += ["--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port), "--metrics-port", str(metrics_port)]
        if certificate:
            command += ["--grpc-use-ssl", "true", "--grpc-server-cert", str(certificate.chain)]
            command += ["--grpc-server-key", str(certificate.key)]
            if certificate.mutual:
                command += ["--grpc-use-ssl-mutual", "true", "--grpc-root-cert", str(certificate.authority)]
        address = f"127.0.0.1:{grpc_port}"
        server = Server(TRITON, address, 0, certificate)
        with child.running(command, server.endpoint, MODEL, folder, environ) as pid:
            yield Server(TRITON, address, pid, certificate)
