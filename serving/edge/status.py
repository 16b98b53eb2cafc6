"""What calls that have failed carry: messages short enough to travel, and when to try again.

A client with a retry policy obeys `grpc-retry-pushback-ms` (https://github.com/grpc/proposal/blob/master/A6-client-retries.md);
programs read the same from a `google.rpc.RetryInfo`, which is little enough to be written without protobuf.
"""

from __future__ import annotations

from serving.protocol.answers import varint
from serving.protocol.codes import Code

# Longer messages would make the trailing metadata too large, and the client would see something else instead.
MAX_DETAILS_BYTES = 1000
PUSHBACK, DETAILS = "grpc-retry-pushback-ms", "grpc-status-details-bin"
_RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"


def details(message: str) -> str:
    """An error's message as it travels: cut where it is too long, with ? for what is no text (names on disk may hold it)."""
    encoded = message.encode(errors="replace")
    more = "..." if len(encoded) > MAX_DETAILS_BYTES else ""
    return encoded[:MAX_DETAILS_BYTES].decode(errors="ignore") + more


def retry_info(code: Code, message: str, retry_ms: int) -> bytes:
    """A `google.rpc.Status` with a `RetryInfo` in its details: try again after so many milliseconds."""
    seconds, ms = divmod(retry_ms, 1000)
    delay = _number(1, seconds) + _number(2, ms * 1_000_000)
    packed = _bytes(1, _RETRY_INFO) + _bytes(2, _bytes(1, delay))
    return _number(1, code.value) + _bytes(2, details(message).encode()) + _bytes(3, packed)


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + varint(value) if value else b""


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + varint(len(value)) + value
