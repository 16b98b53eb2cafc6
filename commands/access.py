"""How a client of ours gets into a server: the flags for TLS and a token, and the files that they name.

Files are read once, when the command starts. A command that outlives its token is refused by the server from then on.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path


class AccessError(ValueError):
    """Files that cannot be read or do not belong together; the message is the one sentence that the caller reads."""


@dataclasses.dataclass(frozen=True)
class Access:
    """`metadata` goes with every call. `tls` is None for a plain connection.

    Else `tls` is what `grpc.ssl_channel_credentials` takes, in PEM: the authority that is trusted (None for those of the
    system), the client's private key and its certificate (None for a client that shows none).
    """

    metadata: tuple[tuple[str, str], ...] = ()
    tls: tuple[bytes | None, bytes | None, bytes | None] | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the group "access"; `read` takes what was given."""
    group = parser.add_argument_group("access")
    group.add_argument("--tls", action="store_true", help="connect with TLS; the system's authorities are trusted")
    for flag, meaning in (
        ("--tls-ca", "TLS, trusting this authority instead (PEM)"),
        ("--tls-cert", "the client's certificate (PEM), for mutual TLS"),
        ("--tls-key", "its private key (PEM)"),
        ("--token-file", "send the first token of this file with every call"),
    ):
        group.add_argument(flag, type=Path, metavar="FILE", help=meaning)


def read(options: argparse.Namespace) -> Access:
    """What the flags of `add_flags` say. Raises `AccessError`."""
    authority, certificate, key = options.tls_ca, options.tls_cert, options.tls_key
    if bool(certificate) != bool(key):
        raise AccessError("a client certificate needs both --tls-cert and --tls-key")
    metadata: tuple[tuple[str, str], ...] = ()
    if options.token_file:
        tokens = _content(options.token_file).decode("ascii", errors="replace").split()
        if not tokens or not tokens[0].isascii():
            raise AccessError(f"{options.token_file} holds no token, which is ASCII text without spaces")
        metadata = (("authorization", f"Bearer {tokens[0]}"),)
    if not (options.tls or authority or certificate):
        return Access(metadata)
    return Access(metadata, (_pem(authority), _pem(key), _pem(certificate)))


def _pem(path: Path | None) -> bytes | None:
    return _content(path) if path else None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessError(f"{path} cannot be read: {error.strerror}") from error
