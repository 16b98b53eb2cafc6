"""Where the server is and how one gets in: its address, TLS, and a token.

Files are read once, before the test; if the token expires during the test, requests fail from then on.
"""

from __future__ import annotations

import argparse
import dataclasses

import grpc

from commands import access
from loadtest.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """HOST:PORT; `credentials` for TLS, None for a plain connection; `metadata` of every call."""

    url: str
    credentials: grpc.ChannelCredentials | None = None
    metadata: tuple[tuple[str, str], ...] = ()


def from_options(options: argparse.Namespace) -> Endpoint:
    """What the command line says. Raises `UsageError` for files that cannot be read or do not belong together."""
    try:
        given = access.read(options)
    except access.AccessError as error:
        raise UsageError(str(error)) from error
    credentials = grpc.ssl_channel_credentials(*given.tls) if given.tls else None
    return Endpoint(options.url, credentials, given.metadata)
