"""TLS, client certificates and tokens: who gets in, who does not, and what each of them is told."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import grpc_service_pb2 as pb
from serving.errors import StartupError
from serving.launch import LaunchedServer
from tests.support import fake_models
from tests.support.running import FAKE, metric
from tests.support.wire import SERVICE, request

CODE = grpc.StatusCode
TOKEN, OLDER_TOKEN = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    fake_models.write(folder)
    return folder


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def files(authority: trustme.CA, folder: Path) -> list[str]:
    """The flags of a TLS port whose files lie in this folder."""
    write(authority, folder)
    return ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]


def write(authority: trustme.CA, folder: Path) -> None:
    """A new certificate, put in place as a whole."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    for name, content in (("key.pem", issued.private_key_pem), ("cert.pem", issued.cert_chain_pems[0])):
        (folder / f"new-{name}").write_bytes(content.bytes())
        (folder / f"new-{name}").replace(folder / name)


def secure(server: LaunchedServer, authority: trustme.CA, client: trustme.LeafCert | None = None) -> grpc.Channel:
    shown = (client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()) if client else (None, None)
    return grpc.secure_channel(server.address, grpc.ssl_channel_credentials(authority.cert_pem.bytes(), *shown))


def infer(channel: grpc.Channel, **more: Any) -> pb.ModelInferResponse:
    method = channel.unary_unary(
        f"/{SERVICE.full_name}/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
    )
    answer: pb.ModelInferResponse = method(request("fake", 1.0, 2), timeout=20, **more)
    return answer


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    code: grpc.StatusCode = raised.value.code()  # type: ignore[attr-defined]
    return code


def test_tls(repository: Path, authority: trustme.CA, tmp_path: Path) -> None:
    with LaunchedServer(repository, *FAKE, *files(authority, tmp_path)) as server:
        with secure(server, authority) as channel:
            assert infer(channel).model_name == "fake"
        with secure(server, trustme.CA()) as stranger:
            assert code_of(lambda: infer(stranger)) is CODE.UNAVAILABLE
        with grpc.insecure_channel(server.address) as plain:
            assert code_of(lambda: infer(plain)) is CODE.UNAVAILABLE
        assert server.stop() == 0


def test_mutual_tls(repository: Path, authority: trustme.CA, tmp_path: Path) -> None:
    clients = trustme.CA()
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    flags = [*files(authority, tmp_path), "--tls-client-ca", str(tmp_path / "clients.pem")]
    with LaunchedServer(repository, *FAKE, *flags) as server:
        with secure(server, authority, clients.issue_cert("client@example.org")) as known:
            assert infer(known).model_name == "fake"
        with secure(server, authority, trustme.CA().issue_cert("client@example.org")) as unknown:
            assert code_of(lambda: infer(unknown)) is CODE.UNAVAILABLE
        with secure(server, authority) as nameless:
            assert code_of(lambda: infer(nameless)) is CODE.UNAVAILABLE


def test_a_renewed_certificate_is_used_without_a_restart(
    repository: Path, authority: trustme.CA, tmp_path: Path
) -> None:
    with LaunchedServer(repository, *FAKE, *files(authority, tmp_path)) as server, secure(server, authority) as old:
        infer(old)
        newer = trustme.CA()
        (tmp_path / "cert.pem").write_bytes(b"half a copy")
        with secure(server, authority) as meanwhile:
            infer(meanwhile)
        assert "old certificate stays in use" in server.wait_for("the old certificate stays", 10)["message"]
        write(newer, tmp_path)
        with secure(server, newer) as new:
            infer(new)
        infer(old)  # a connection that is open stays so


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "key.pem").unlink(), r"key.pem \(--tls-key\) cannot be read: No such file"),
        (lambda folder: (folder / "cert.pem").write_text("no"), r"no certificate and its unencrypted key"),
        (lambda folder: trustme.CA().private_key_pem.write_to_path(folder / "key.pem"), "no certificate and its"),
    ],
)
def test_files_that_cannot_be_used(
    repository: Path, authority: trustme.CA, tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    flags = files(authority, tmp_path)
    spoil(tmp_path)
    with pytest.raises(StartupError, match=said):
        LaunchedServer(repository, *FAKE, *flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tls-cert", "c.pem"], "TLS needs both --tls-cert and --tls-key"),
        (["--tls-client-ca", "c.pem"], "TLS needs both"),
        (["--auth-token-file", "nowhere"], r"nowhere \(--auth-token-file\) cannot be read"),
    ],
)
def test_flags_that_make_no_sense(repository: Path, flags: list[str], said: str) -> None:
    with pytest.raises(StartupError, match=said):
        LaunchedServer(repository, *FAKE, *flags)


@pytest.mark.parametrize("content", ["", "\n \n", "two words\n"])
def test_a_token_file_without_a_token(repository: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "tokens").write_text(content)
    with pytest.raises(StartupError, match="must hold at least one token"):
        LaunchedServer(repository, *FAKE, "--auth-token-file", str(tmp_path / "tokens"))


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory, edge: str) -> Iterator[LaunchedServer]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"{TOKEN}\n{OLDER_TOKEN}\n")
    with LaunchedServer(repository, *FAKE, "--auth-token-file", str(tokens)) as server:
        yield server


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer {OLDER_TOKEN}"])
def test_a_token_lets_in(guarded: LaunchedServer, value: str) -> None:
    with grpc.insecure_channel(guarded.address) as channel:
        assert infer(channel, metadata=[("authorization", value)]).model_name == "fake"


@pytest.mark.parametrize(
    "value", [None, "", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer"]
)
def test_anything_else_does_not(guarded: LaunchedServer, value: str | None) -> None:
    before = _refused(guarded)
    with grpc.insecure_channel(guarded.address) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            infer(channel, metadata=[("authorization", value)] if value is not None else [])
        assert raised.value.code() is CODE.UNAUTHENTICATED
        assert "'Bearer TOKEN'" in raised.value.details()
        assert TOKEN not in raised.value.details()
    assert _refused(guarded) == before + 1


def test_no_method_is_forgotten(guarded: LaunchedServer) -> None:
    """Every method of every service, and streams that never send anything."""
    silent = threading.Event()

    def nothing() -> None:
        silent.wait()

    with grpc.insecure_channel(guarded.address) as channel:
        methods = [
            f"/{SERVICE.full_name}/{method.name}" for method in SERVICE.methods if method.name != "ModelStreamInfer"
        ]
        for method in (*methods, "/grpc.health.v1.Health/Check", "/no.such/Method"):
            assert code_of(lambda path=method: channel.unary_unary(path)(b"", timeout=20)) is CODE.UNAUTHENTICATED
        for method in (
            f"/{SERVICE.full_name}/ModelStreamInfer",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/grpc.health.v1.Health/Watch",
        ):
            stream = channel.stream_stream(method)(iter(nothing, None), timeout=20)
            assert code_of(lambda call=stream: next(call)) is CODE.UNAUTHENTICATED
        silent.set()


def test_health_stays_open_where_that_is_asked_for(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(TOKEN)
    flags = ["--auth-token-file", str(tmp_path / "tokens"), "--auth-health", "open"]
    with LaunchedServer(repository, *FAKE, *flags) as server, grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        assert next(health.Watch(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        for method in ("ServerLive", "ServerReady"):
            assert channel.unary_unary(f"/{SERVICE.full_name}/{method}")(b"", timeout=20)
        assert code_of(lambda: infer(channel)) is CODE.UNAUTHENTICATED
        assert (
            code_of(lambda: channel.unary_unary(f"/{SERVICE.full_name}/ModelReady")(b"", timeout=20))
            is CODE.UNAUTHENTICATED
        )


def test_tokens_on_a_plain_port_are_warned_of(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(TOKEN)
    flags = ["--auth-token-file", str(tmp_path / "tokens"), "--host", "0.0.0.0"]
    with LaunchedServer(repository, *FAKE, *flags) as server:
        assert "anybody on the way" in server.wait_for("tokens are asked for on a plain port", 1)["message"]
        assert not any(TOKEN in str(entry) for entry in server.log())


def _refused(server: LaunchedServer) -> float:
    return metric(server, "requests_refused_total", code="UNAUTHENTICATED")


@pytest.mark.parametrize("streaming", [(), ("--streaming",)], ids=["unary", "streaming"])
def test_the_load_test_gets_in_too(
    streaming: tuple[str, ...], repository: Path, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = authority.issue_cert("load@example.org")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    (tmp_path / "tokens").write_text(TOKEN)
    flags = [*files(authority, tmp_path), "--tls-client-ca", str(tmp_path / "ca.pem")]
    flags += ["--auth-token-file", str(tmp_path / "tokens")]
    asked = ["--tls-ca", "ca.pem", "--tls-cert", "client.pem", "--tls-key", "client.key", "--token-file", "tokens"]
    with LaunchedServer(repository, *FAKE, *flags) as server:
        command = [sys.executable, "-m", "loadtest", "--url", server.address, "--model", "fake", *streaming]
        command += ["--duration", "0.3", "--warm-up", "0.1"]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        run = functools.partial(
            subprocess.run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        done = run([*command, *asked])
        assert done.returncode == 0, done.stderr
        assert metric(server, "requests_total", outcome="success") > 10
        done = run([*command, *asked[:-2]])
        assert done.returncode == 1
        assert "UNAUTHENTICATED" in done.stderr
        done = run(command)
        assert (done.returncode, "no server answers" in done.stderr) == (1, True)
        done = run([*command, "--tls-cert", "client.pem"])
        assert (done.returncode, "needs both" in done.stderr) == (2, True)
