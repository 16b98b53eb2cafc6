"""Clients that others wrote, each doing the work of tests/support/client_work.py, against each edge."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.launch import LaunchedServer
from tests.support import client_work, envoy
from tests.support.grpc_port import EDGES
from tests.support.once import once

CLIENTS = Path(__file__).with_name("clients")
Worked = tuple[LaunchedServer, Path]
JARS = [
    *(f"grpc-{part}" for part in ("api", "context", "core", "netty", "stub")),
    *(f"netty-{part}" for part in ("buffer", "codec", "codec-http", "codec-http2", "codec-socks", "common", "handler",
      "handler-proxy", "resolver", "transport", "transport-native-unix-common")),
    "guava", "perfmark-api",
]  # fmt: skip
JAVA_PATH = ":".join(f"/usr/share/java/{name}.jar" for name in JARS)


@pytest.fixture(scope="module", params=EDGES)
def worked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worked]:
    """A server with this edge, and the folder of the work, which it has answered."""
    folder = tmp_path_factory.mktemp("work")
    with client_work.start(folder, "--edge", request.param) as server:
        client_work.write(folder, server.address)
        yield server, folder
        assert server.stop() == 0


@pytest.mark.parametrize("program", ["grpcio_sync.py", "grpcio_asyncio.py"])
def test_grpcio(worked: Worked, program: str) -> None:
    client_work.check([sys.executable, str(CLIENTS / program)], *worked)


def test_node(worked: Worked, node_modules: Path) -> None:
    needs("node", "nodejs npm")
    environment = {**os.environ, "NODE_PATH": str(node_modules)}
    client_work.check(["node", str(CLIENTS / "client.js")], *worked, environment=environment)


def test_envoy_in_front(worked: Worked, envoy_program: Path, tmp_path: Path) -> None:
    """Envoy speaks to the server with nghttp2, or a library of its own, and keeps one connection for all clients."""
    server, folder = worked
    with envoy.in_front(envoy_program, tmp_path, server.address) as address:
        for program in ("grpcio_sync.py", "grpcio_asyncio.py"):
            client_work.check([sys.executable, str(CLIENTS / program)], server, folder, address=address)


def test_h2load(worked: Worked, tmp_path: Path) -> None:
    """HTTP/2 alone, as fast as it can: 4 connections with 32 calls each in flight."""
    needs("h2load", "nghttp2-client")
    server, folder = worked
    asked = (folder / "0.ask").read_bytes()
    (tmp_path / "body").write_bytes(b"\0" + len(asked).to_bytes(4, "big") + asked)
    headers = ("content-type: application/grpc", "te: trailers", f"authorization: Bearer {client_work.TOKEN}")
    command = ["h2load", "-n", "4000", "-c", "4", "-m", "32", "-d", str(tmp_path / "body")]
    command += [part for header in headers for part in ("-H", header)]
    before = client_work.counted(server)
    url = f"http://{server.address}/inference.GRPCInferenceService/ModelInfer"
    done = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=120)
    assert re.search(r"4000 succeeded, 0 failed, 0 errored, 0 timeout", done.stdout), done.stdout
    answered, _ = client_work.counted(server)
    assert answered == before[0] + 4000


@pytest.mark.languages
def test_cpp(worked: Worked, tmp_path_factory: pytest.TempPathFactory) -> None:
    needs("g++", "g++ libgrpc++-dev", "/usr/include/grpcpp/grpcpp.h")
    libraries = [f"-l{name}" for name in ("grpc++", "grpc", "gpr", "absl_synchronization")]
    program = built(
        tmp_path_factory, "cpp", ["g++", "-std=c++17", str(CLIENTS / "client.cc"), "-o", "client", *libraries]
    )
    client_work.check([str(program / "client")], *worked)


@pytest.mark.languages
def test_go(worked: Worked, tmp_path_factory: pytest.TempPathFactory) -> None:
    needs("go", "golang-go golang-google-grpc-dev", "/usr/share/gocode/src/google.golang.org/grpc")
    of_debian = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}
    program = built(tmp_path_factory, "go", ["go", "build", "-o", "client", str(CLIENTS / "client.go")], **of_debian)
    client_work.check([str(program / "client")], *worked)


@pytest.mark.languages
def test_java(worked: Worked, tmp_path_factory: pytest.TempPathFactory) -> None:
    packages = "default-jdk-headless libgrpc-java libnetty-java libguava-java libperfmark-java"
    needs("javac", packages, *JAVA_PATH.split(":"))
    program = built(tmp_path_factory, "java", ["javac", "-cp", JAVA_PATH, "-d", ".", str(CLIENTS / "Client.java")])
    client_work.check(["java", "-cp", f"{JAVA_PATH}:{program}", "Client"], *worked)


def needs(command: str, packages: str, *files: str) -> None:
    """Skips the test where a command or a file is missing, and says which packages have it."""
    if not shutil.which(command) or not all(Path(file).exists() for file in files):
        pytest.skip(f"needs Debian packages: apt-get install --no-install-recommends {packages}")


def built(temporary: pytest.TempPathFactory, name: str, command: list[str], **environment: str) -> Path:
    """The folder in which the command has run, once for all tests."""

    def build(folder: Path) -> None:
        variables = {**os.environ, **environment}
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return once(temporary, f"client-{name}", build)
