"""TLS of the gRPC port, with or without client certificates.

Certificates are read again when their files change, so a renewed one is used without a restart. A changed file that
cannot be used is logged and the old certificate stays, since a server that is up must not be taken down by a copy that
is not finished.
"""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path
from typing import NamedTuple

from serving.errors import StartupError

log = logging.getLogger(__name__)


class Pem(NamedTuple):
    """What the files hold."""

    key: bytes
    cert: bytes
    authority: bytes | None


class Certificates:
    """The files of a TLS port, PEM: `cert` with its chain, its `key`, and the authority of client certificates.

    With `client_ca` a client must show a certificate that was signed by it (mutual TLS). Raises `StartupError`, naming
    the file, when they cannot be used. Used from any thread.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self._lock = threading.Lock()  # guards what follows
        self._stamp = self._now()
        self._context, self.pem = self._read()

    @property
    def mutual(self) -> bool:
        """Whether clients must show a certificate."""
        return self._client_ca is not None

    def context(self) -> ssl.SSLContext:
        """What a new connection is wrapped with."""
        self.renew()
        return self._context

    def renew(self) -> bool:
        """Looks at the files; True when there are others, which are used from now on."""
        with self._lock:
            stamp = self._now()
            if stamp == self._stamp:
                return False
            self._stamp = stamp
            try:
                self._context, self.pem = self._read()
            except StartupError as error:
                log.error("the old certificate stays in use: %s", error)
                return False
        log.info("a renewed certificate is in use", extra={"fields": {"tls_cert": str(self._cert)}})
        return True

    def _read(self) -> tuple[ssl.SSLContext, Pem]:
        cert, key = self._content(self._cert, "--tls-cert"), self._content(self._key, "--tls-key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
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
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._client_ca)
            except (ssl.SSLError, OSError, ValueError) as error:
                raise StartupError(
                    f"{self._client_ca} (--tls-client-ca) holds no certificate of an authority, PEM: {error}"
                ) from error
        return context, Pem(key, cert, authority)

    def _content(self, path: Path, flag: str) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise StartupError(f"{path} ({flag}) cannot be read: {error.strerror}") from error

    def _now(self) -> tuple[tuple[int, int] | None, ...]:
        """What changes when a file does, a link that is turned to another folder included."""
        return tuple(_stamp(path) for path in (self._cert, self._key, self._client_ca) if path)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
