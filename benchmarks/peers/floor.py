"""gRPC's C++ callback server answering constants (`floor.cc`): what this machine's gRPC costs before anybody serves a model.

It is built where there are g++ and Debian's libgrpc++-dev. The answers are those of another server, recorded.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc

from benchmarks.peers import child
from benchmarks.peers.errors import PeerError
from benchmarks.peers.server import FLOOR, MODEL, Server
from protos import grpc_service_pb2 as pb

_SOURCE = Path(__file__).with_name("floor.cc")
_SECONDS = 300.0
_METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig")


def build(environment: Path) -> None:
    """Builds it, unless it is newer than its source. Raises `PeerError` where there is no compiler or no library."""
    program = environment / "floor"
    if program.exists() and program.stat().st_mtime > _SOURCE.stat().st_mtime:
        return
    if not shutil.which("g++") or not shutil.which("pkg-config"):
        raise PeerError("there is no C++ compiler here (apt-get install g++ pkg-config)")
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "grpc++"], capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    if found.returncode:
        raise PeerError("gRPC's C++ library is not here (apt-get install libgrpc++-dev)")
    environment.mkdir(parents=True, exist_ok=True)
    command = ["g++", "-std=c++17", "-O2", "-o", str(program), str(_SOURCE), *found.stdout.split()]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    if built.returncode:
        raise PeerError(f"{' '.join(command)} has failed: {built.stderr[-1500:]}")


def record(server: Server, request: bytes, folder: Path) -> None:
    """Writes the answers of another server into a folder, a file for each method."""
    with grpc.insecure_channel(server.address) as channel:

        def keep(method: str, asked: bytes) -> None:
            send = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            (folder / method).write_bytes(send(asked, timeout=10))

        for method in _METHODS:
            kind = getattr(pb, f"{method}Request")
            named = kind(name=MODEL) if "name" in kind.DESCRIPTOR.fields_by_name else kind()
            keep(method, named.SerializeToString())
        keep("ModelInfer", request)


@contextlib.contextmanager
def serve(environment: Path, answers: Path) -> Iterator[Server]:
    """The program on a free port. Raises `PeerError` if it is not ready in time."""
    (port,) = child.free_ports(1)
    server = Server(FLOOR, f"127.0.0.1:{port}", 0)
    command = [str((environment / "floor").absolute()), server.address, str(answers), MODEL]
    with (
        tempfile.TemporaryDirectory() as folder,
        child.running(command, server.endpoint, MODEL, Path(folder)) as pid,
    ):
        yield Server(server.name, server.address, pid)
