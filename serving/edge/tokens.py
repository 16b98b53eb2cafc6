"""Bearer tokens: who may call, whatever the transport is."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from serving.errors import StartupError, Unauthenticated

Metadata = Iterable[tuple[str, str | bytes]] | None

HEALTH_METHODS = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)


class Tokens:
    """Lets a call in when its metadata has `authorization: Bearer TOKEN`, with any of the tokens in `file`, one a line.

    With `open_health` health, liveness and readiness may be asked without one. `flag` is what has named the file. Raises
    `StartupError` when the file cannot be read or holds no token.
    """

    def __init__(self, file: Path, *, open_health: bool, flag: str = "--auth-token-file") -> None:
        try:
            lines = file.read_text(encoding="ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"{file} ({flag}) cannot be read: {error}") from error
        tokens = [line.strip() for line in lines if line.strip()]
        if not tokens or any(" " in token or not token.isprintable() for token in tokens):
            raise StartupError(
                f"{file} ({flag}) must hold at least one token, one a line, without spaces within; try: "
                "openssl rand -hex 32"
            )
        self._digests = [_digest(token.encode()) for token in tokens]
        self._flag = flag
        self._open = HEALTH_METHODS if open_health else frozenset()

    def refusal(self, method: str, metadata: Metadata) -> Unauthenticated | None:
        """Why a call of `method` (its full path) is turned away; None if it may go on. Nothing of the call has been read."""
        if method in self._open or self.known(metadata):
            return None
        return Unauthenticated(
            "a valid token is needed: send the metadata 'authorization' with the value 'Bearer TOKEN', where TOKEN is one "
            f"of those that the server was started with ({self._flag})"
        )

    def known(self, metadata: Metadata) -> bool:
        """Whether the metadata carry one of the tokens; takes the same time for every wrong one."""
        return bool(self.caller(metadata))

    def caller(self, metadata: Metadata) -> str:
        """A name for whoever has the token that the metadata carry, which tells nothing of it; empty where they carry none."""
        caller = ""
        for key, value in metadata or ():
            if key == "authorization":
                text = value.encode() if isinstance(value, str) else value
                scheme, _, token = text.partition(b" ")
                digest = _digest(token.strip())
                for expected in self._digests:
                    if hmac.compare_digest(digest, expected) and scheme.lower() == b"bearer":
                        caller = f"token:{_digest(expected).hex()[:16]}"
        return caller


def _digest(token: bytes) -> bytes:
    """Of equal length for every token, so that a comparison tells nothing of how long the right one is."""
    return hashlib.sha256(token).digest()
