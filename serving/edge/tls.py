"""Who may talk to the server: TLS with or without client certificates, and bearer tokens.

Certificates are read again when their files change, so a renewed one is used without a restart. A changed file that
cannot be used is logged and the old certificate stays, since a server that is up must not be taken down by a copy that
is not finished.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from serving.errors import StartupError, Unauthenticated
from serving.protocol.service import answer_for

log = logging.getLogger(__name__)

HEALTH_METHODS = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)


class Certificates:
    """The files of a TLS port, PEM: `cert` with its chain, its `key`, and the authority of client certificates.

    With `client_ca` a client must show a certificate that was signed by it (mutual TLS). Raises `StartupError`, naming
    the file, when they cannot be used.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self._stamp = self._now()
        self._configuration = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """What a secure port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration, self._renewed, require_client_authentication=self._client_ca is not None
        )

    def _renewed(self) -> Any:
        """Called by gRPC before every handshake: a new configuration, or None to go on with the old one."""
        stamp = self._now()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            configuration = self._read()
        except StartupError as error:
            log.error("the old certificate stays in use: %s", error)
            return None
        log.info("a renewed certificate is in use", extra={"fields": {"tls_cert": str(self._cert)}})
        return configuration

    def _read(self) -> Any:
        cert, key = self._content(self._cert, "--tls-cert"), self._content(self._key, "--tls-key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._cert, self._key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise StartupError(
                f"{self._cert} (--tls-cert) and {self._key} (--tls-key) are no certificate and its unencrypted key, "
                f"both PEM: {error}"
            ) from error
        authority = None
        if self._client_ca:
            authority = self._content(self._client_ca, "--tls-client-ca")
            try:
                context.load_verify_locations(self._client_ca)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise StartupError(
                    f"{self._client_ca} (--tls-client-ca) holds no certificate of an authority, PEM: {error}"
                ) from error
        return grpc.ssl_server_certificate_configuration([(key, cert)], authority)

    def _content(self, path: Path, flag: str) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise StartupError(f"{path} ({flag}) cannot be read: {error.strerror}") from error

    def _now(self) -> tuple[tuple[int, int] | None, ...]:
        """What changes when a file does, a link that is turned to another folder included."""
        return tuple(_stamp(path) for path in (self._cert, self._key, self._client_ca) if path)


class Tokens(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets a call in when its metadata has `authorization: Bearer TOKEN`, with any of the tokens in `file`, one a line.

    With `open_health` health, liveness and readiness may be asked without one. `on_refused` is called for every call
    that is turned away. Raises `StartupError` when the file cannot be read or holds no token.
    """

    def __init__(self, file: Path, *, open_health: bool, on_refused: Callable[[Unauthenticated], None]) -> None:
        try:
            lines = file.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"{file} (--auth-token-file) cannot be read: {error}") from error
        tokens = [line.strip() for line in lines if line.strip()]
        if not tokens or any(" " in token or not token.isprintable() for token in tokens):
            raise StartupError(
                f"{file} (--auth-token-file) must hold at least one token, one a line, without spaces within; try: "
                "openssl rand -hex 32"
            )
        self._digests = [_digest(token.encode()) for token in tokens]
        self._open = HEALTH_METHODS if open_health else frozenset()
        self._on_refused = on_refused

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """The handler of the call, or one that turns it away without reading anything of it."""
        if details.method in self._open or self.known(details.invocation_metadata):
            return continuation(details)
        error = Unauthenticated(
            "a valid token is needed: send the metadata 'authorization' with the value 'Bearer TOKEN', where TOKEN is one "
            "of those that the server was started with (--auth-token-file)"
        )
        self._on_refused(error)
        code, message = answer_for(error)

        def turn_away(_requests: Any, context: grpc.ServicerContext) -> Any:
            context.abort(code, message)

        return grpc.stream_stream_rpc_method_handler(turn_away)  # which fits every kind of call

    def known(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Whether the metadata carry one of the tokens; takes the same time for every wrong one."""
        known = False
        for key, value in metadata or ():
            if key == "authorization":
                text = value.encode() if isinstance(value, str) else value
                scheme, _, token = text.partition(b" ")
                digest = _digest(token.strip())
                for expected in self._digests:
                    known |= hmac.compare_digest(digest, expected) and scheme.lower() == b"bearer"
        return known


def _digest(token: bytes) -> bytes:
    """Of equal length for every token, so that a comparison tells nothing of how long the right one is."""
    return hashlib.sha256(token).digest()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
