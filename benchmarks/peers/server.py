"""A server under test that is up, whoever made it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import grpc

from benchmarks import reference
from benchmarks.peers.errors import PeerError
from loadtest.endpoint import Endpoint
from loadtest.errors import LoadTestError
from loadtest.target import connect

OURS, TRITON, MLSERVER, FLOOR = "lstm-serve", "Triton", "MLServer", "floor"
MODEL = reference.NAME  # what every server calls it
_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Certificate:
    """PEM files of a server's TLS: its chain, its private key, and the authority that clients trust."""

    chain: Path
    key: Path
    authority: Path


@dataclasses.dataclass(frozen=True)
class Server:
    """HOST:PORT, the process to watch, and the certificate of a server that speaks TLS."""

    name: str
    address: str
    pid: int
    certificate: Certificate | None = None

    @property
    def endpoint(self) -> Endpoint:
        """How a client of ours connects."""
        return endpoint(self.address, self.certificate)

    @property
    def flags(self) -> list[str]:
        """The same for the command line of lstm-loadtest."""
        trusted = ["--tls-ca", str(self.certificate.authority)] if self.certificate else []
        return ["--url", self.address, *trusted]

    def answered(self) -> int | None:
        """Requests that the server itself has counted as successes; None if it keeps no ModelStatistics.

        Raises `PeerError` if it does not answer.
        """
        try:
            with connect(self.endpoint, _SECONDS) as target:
                account = target.account(MODEL, "")
        except LoadTestError as error:
            raise PeerError(str(error)) from error
        return account.answered if account else None


def endpoint(address: str, certificate: Certificate | None) -> Endpoint:
    """Plain, or trusting the certificate's authority."""
    if certificate is None:
        return Endpoint(address)
    return Endpoint(address, grpc.ssl_channel_credentials(certificate.authority.read_bytes()))
