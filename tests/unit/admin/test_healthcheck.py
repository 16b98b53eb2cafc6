"""The health check of a container asks by the server's own settings."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from admin import healthcheck
from admin.healthcheck import metadata, open_channel


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Says that it serves."""

    def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> object:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture
def port() -> Iterator[int]:
    """Where such a server listens."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    opened = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield opened
    server.stop(None).wait()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", None])
def test_a_server_on_every_interface_is_found_on_this_machine(host: str | None, port: int) -> None:
    settings = {"GRPC_PORT": str(port), **({"HOST": host} if host else {})}
    with open_channel(settings) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_first_of_the_servers_own_tokens_is_sent(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("first\nsecond\n")
    assert metadata({"AUTH_TOKEN_FILE": str(tmp_path / "tokens")}) == [("authorization", "Bearer first")]
    assert metadata({}) == []


def test_a_certificate_that_is_not_there_is_no_tls(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file or directory: .*cert\.pem"):
        open_channel({"TLS_CERT": str(tmp_path / "cert.pem"), "TLS_KEY": str(tmp_path / "key.pem")})


def test_half_a_configuration_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="LSTM_SERVE_TLS_KEY is not; the server needs both"):
        healthcheck.open_channel({"TLS_CERT": "cert.pem"})
    (tmp_path / "tokens").write_text("\n")
    with pytest.raises(OSError, match="holds no token"):
        healthcheck.metadata({"AUTH_TOKEN_FILE": str(tmp_path / "tokens")})


def test_it_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        healthcheck.main(["--url", "127.0.0.1:8001"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --url 127.0.0.1:8001" in capsys.readouterr().err
