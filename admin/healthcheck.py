"""Asks a server on this machine whether it is ready, for the health check of a container: `lstm-healthcheck`.

Exits with 0 if `grpc.health.v1` says SERVING, else with 1 and the reason. It is configured by the server's own
LSTM_SERVE_ variables: host, port, token and certificates; flags on the server's command line are unknown to it. Over
TLS it trusts the server's own certificate and no other, and takes the name from there. Where clients must show a
certificate, it shows the server's, so the authority of the clients must have signed that one too.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault(
    "GRPC_VERBOSITY", "NONE"
)  # what is wrong is told by us, once; grpcio reads it when it is imported

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from commands import version
from commands.parser import Parser

TIMEOUT_SECONDS = 4.0
# Where a server that listens on every interface is found.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def open_channel(settings: Mapping[str, str]) -> grpc.Channel:
    """A channel to the server with these settings, by the flags' names. Raises `OSError` when there is no TLS to be had."""
    target = _target(settings)
    host, _, port = target.rpartition(":")
    options: list[tuple[str, object]] = [("grpc.enable_http_proxy", 0)]
    if "TLS_CERT" not in settings:
        return grpc.insecure_channel(target, options)
    if "TLS_KEY" not in settings:
        raise OSError("LSTM_SERVE_TLS_CERT is set and LSTM_SERVE_TLS_KEY is not; the server needs both")
    cert, key = Path(settings["TLS_CERT"]), Path(settings["TLS_KEY"])
    trusted = cert.read_bytes()
    own = (key.read_bytes(), trusted) if "TLS_CLIENT_CA" in settings else (None, None)
    options.append(("grpc.ssl_target_name_override", _name_of_server(host.strip("[]"), int(port), cert)))
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(trusted, *own), options)


def _target(settings: Mapping[str, str]) -> str:
    """HOST:PORT of the server."""
    host = settings.get("HOST", "127.0.0.1")
    host, port = LOOPBACK.get(host, host), settings.get("GRPC_PORT", "8001")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def metadata(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    """The first token of the server's own file, if it has one. Raises `OSError` when there is none to be read."""
    if "AUTH_TOKEN_FILE" not in settings:
        return []
    tokens = Path(settings["AUTH_TOKEN_FILE"]).read_text().split()
    if not tokens:
        raise OSError(f"{settings['AUTH_TOKEN_FILE']} (LSTM_SERVE_AUTH_TOKEN_FILE) holds no token")
    return [("authorization", f"Bearer {tokens[0]}")]


def parser() -> argparse.ArgumentParser:
    """The command line of `lstm-healthcheck`."""
    made = Parser(
        prog="lstm-healthcheck",
        description="Asks the server on this machine whether it is ready. It takes no arguments: the server's own LSTM_SERVE_ "
        "variables say where it is (host, port, token, certificates).",
    )
    version.add_flag(made)
    return made


def main(command_line: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 ready, 1 not ready or not there, 2 wrong usage."""
    parser().parse_args(command_line)
    prefix = "LSTM_SERVE_"
    settings = {name.removeprefix(prefix): value for name, value in os.environ.items() if name.startswith(prefix)}
    try:
        with open_channel(settings) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            answer = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS, metadata=metadata(settings))
    except grpc.RpcError as error:
        print(f"no answer: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot ask: {error}", file=sys.stderr)
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return 0
    print(f"the reason is told by lstm-admin --url {_target(settings)} index, and by the server's log", file=sys.stderr)
    return 1


def _name_of_server(host: str, port: int, cert: Path) -> str:
    """A name that the certificate of the server is good for; the server must show this very certificate."""
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host, port), TIMEOUT_SECONDS) as plain, context.wrap_socket(plain) as secured:
        shown = secured.getpeercert() or {}
    names = [str(name[1]) for name in shown.get("subjectAltName", ())]
    if not names:
        raise OSError(f"{cert} names no host (subjectAltName)")
    return names[0].replace("*", "any")


if __name__ == "__main__":
    sys.exit(main())
