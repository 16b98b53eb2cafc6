"""Where the server is and how one gets in: its address, TLS, and a token.

Nothing here is read again; a test that is longer than its token lives will see the difference.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import grpc

from loadtest.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """HOST:PORT; `credentials` for TLS, None for a plain connection; `metadata` of every call."""

    url: str
    credentials: grpc.ChannelCredentials | None = None
    metadata: tuple[tuple[str, str], ...] = ()


def from_options(options: argparse.Namespace) -> Endpoint:
    """What the command line says. Raises `UsageError` for files that cannot be read or do not belong together."""
    if bool(options.tls_cert) != bool(options.tls_key):
        raise UsageError("a client certificate needs both --tls-cert and --tls-key")
    metadata: tuple[tuple[str, str], ...] = ()
    if options.token_file:
        tokens = _content(options.token_file).decode(errors="replace").split()
        if not tokens:
            raise UsageError(f"{options.token_file} holds no token")
        metadata = (("authorization", f"Bearer {tokens[0]}"),)
    credentials = None
    if options.tls or options.tls_ca or options.tls_cert:
        credentials = grpc.ssl_channel_credentials(
            *(_content(path) if path else None for path in (options.tls_ca, options.tls_key, options.tls_cert))
        )
    return Endpoint(options.url, credentials, metadata)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
