"""A server under test that is up, whoever made it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from benchmarks import reference
from benchmarks.peers.errors import PeerError
from loadtest.endpoint import Endpoint
from loadtest.errors import LoadTestError
from loadtest.target import Target, connect

OURS, PUBLIC, TRITON, MLSERVER = "lstm-serve", "lstm-serve, grpcio", "Triton", "MLServer"
EDGE, FLOOR = "edge alone", "gRPC alone"  # answer a constant
MODEL = reference.NAME  # what every server calls it
_SECONDS = 10.0
_REST_SECONDS = 0.1  # for which a count that is at rest has not changed


@dataclasses.dataclass(frozen=True)
class Certificate:
    """PEM files: a server's chain, its private key, and the authority that clients trust.

    With `mutual` the server asks its clients for a certificate of the same authority, and they show this one.
    """

    chain: Path
    key: Path
    authority: Path
    mutual: bool = False


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
        flags = ["--url", self.address]
        if self.certificate:
            flags += ["--tls-ca", str(self.certificate.authority)]
            if self.certificate.mutual:
                flags += ["--tls-cert", str(self.certificate.chain), "--tls-key", str(self.certificate.key)]
        return flags

    def answered(self) -> int | None:
        """Requests that the server itself has counted as successes; None if it keeps no ModelStatistics.

        The count is at rest, as Triton counts a request after it has answered. Raises `PeerError` if the server does not
        answer, or goes on counting.
        """
        try:
            with connect(self.endpoint, _SECONDS) as target:
                return _at_rest(lambda: _answered(target))
        except LoadTestError as error:
            raise PeerError(str(error)) from error


def endpoint(address: str, certificate: Certificate | None) -> Endpoint:
    """Plain, or trusting the certificate's authority, and showing a certificate where the server asks for one."""
    if certificate is None:
        return Endpoint(address)
    shown = (certificate.key.read_bytes(), certificate.chain.read_bytes()) if certificate.mutual else ()
    return Endpoint(address, grpc.ssl_channel_credentials(certificate.authority.read_bytes(), *shown))


def _answered(target: Target) -> int | None:
    account = target.account(MODEL, "")
    return account.answered if account else None


def _at_rest(read: Callable[[], int | None]) -> int | None:
    """The count when it has not changed for a moment; None if there is none."""
    limit = time.monotonic() + _SECONDS
    counted = read()
    while counted is not None:
        time.sleep(_REST_SECONDS)
        before, counted = counted, read()
        if counted == before:
            break
        if time.monotonic() > limit:
            raise PeerError(f"the server still counts requests, {_SECONDS:g} s after the last one was to be answered")
    return counted
