"""gRPC as it travels in HTTP/2: time-outs, messages, their compression, how a call ends. Bytes in, bytes out.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import base64
import collections
import string
import zlib

from serving.edge.status import DETAILS, PUSHBACK, details, retry_info
from serving.protocol.codes import Code

Headers = tuple[tuple[bytes, bytes], ...]

PREFIX_BYTES = 5  # before each message: whether it is compressed, and its length
# What is copied with the interpreter's lock held: of a message that is unpacked, as much at a time. `join` holds no lock.
PIECE_BYTES = 64 * 1024
TIMEOUT_DIGITS = 8
UNITS_NS = {b"H": 3600 * 10**9, b"M": 60 * 10**9, b"S": 10**9, b"m": 10**6, b"u": 10**3, b"n": 1}
WINDOW_BITS = {b"gzip": 31, b"deflate": 15}  # what zlib calls their formats
ACCEPTED = b"identity,deflate,gzip"
ENCODINGS = frozenset(ACCEPTED.split(b","))
_PLAIN = frozenset((string.ascii_letters + string.digits + string.punctuation + " ").encode()) - frozenset(b"%")


class Malformed(Exception):
    """A call does not say what it must; `str(error)` says what and why."""


class TooLarge(Exception):
    """A message is larger than is allowed; `str(error)` says what and why."""


def timeout_ns(text: bytes) -> int:
    """How long the client waits, from `grpc-timeout`. Raises `Malformed`."""
    digits, unit = text[:-1], text[-1:]
    if unit in UNITS_NS and digits.isdigit() and len(digits) <= TIMEOUT_DIGITS:
        return int(digits) * UNITS_NS[unit]
    raise Malformed(
        f"grpc-timeout is {text[:40].decode(errors='replace')!r}; it must be 1 to {TIMEOUT_DIGITS} digits and one of "
        "H, M, S, m, u, n"
    )


def framed(payload: bytes, *, compressed: bool = False) -> bytes:
    """A message with its prefix."""
    return prefix(len(payload), compressed=compressed) + payload


def prefix(length: int, *, compressed: bool = False) -> bytes:
    """What stands before a message of so many bytes."""
    return (b"\1" if compressed else b"\0") + length.to_bytes(4, "big")


def compress(encoding: bytes, payload: bytes) -> bytes:
    """A message in one of `WINDOW_BITS`."""
    packer = zlib.compressobj(zlib.Z_BEST_SPEED, wbits=WINDOW_BITS[encoding])
    return packer.compress(payload) + packer.flush()


def decompress(encoding: bytes, payload: bytes, most: int) -> bytes:
    """A message that came in this encoding. Raises `Malformed`, and `TooLarge` beyond `most` bytes without unpacking more."""
    if encoding not in WINDOW_BITS:
        raise Malformed("a message says that it is compressed and grpc-encoding does not say how")
    unpacker = zlib.decompressobj(WINDOW_BITS[encoding])
    parts, left, rest = list[bytes](), most + 1, memoryview(payload)
    try:
        while rest and left and not unpacker.eof:
            part = unpacker.decompress(rest[:PIECE_BYTES], min(PIECE_BYTES, left))
            rest = rest[min(PIECE_BYTES, len(rest)) - len(unpacker.unconsumed_tail) :]
            parts.append(part)
            left -= len(part)
    except zlib.error as error:
        raise Malformed(f"a message is no {encoding.decode()}: {error}") from None
    if not left:
        raise TooLarge(f"a message is larger than {most} bytes when it is unpacked; --max-message-bytes sets the limit")
    if not unpacker.eof or unpacker.unused_data or rest:
        raise Malformed(f"a message is not one whole piece of {encoding.decode()}")
    return b"".join(parts)


def percent_encoded(message: str) -> bytes:
    """The value of `grpc-message`, cut where it would be too long to travel."""
    encoded = details(message).encode()
    return b"".join(bytes([byte]) if byte in _PLAIN else b"%%%02X" % byte for byte in encoded)


def ending(code: Code, message: str = "", retry_ms: int = 0) -> Headers:
    """The trailers of a call that has ended so."""
    status = (b"grpc-status", b"%d" % code.value)
    if not message:
        return (status,)
    told = (status, (b"grpc-message", percent_encoded(message)))
    if not retry_ms:
        return told
    info = base64.b64encode(retry_info(code, message, retry_ms)).rstrip(b"=")
    return (*told, (PUSHBACK.encode(), b"%d" % retry_ms), (DETAILS.encode(), info))


class Inbox:
    """The bytes of one call, from which its messages are taken; they are joined once, when a message is whole."""

    __slots__ = ("_at", "_buffer", "_more", "_needed", "held")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._more: list[bytes] = []
        self._needed = 0  # bytes of the next message and its prefix; 0 until that is known
        self.held = 0  # bytes that have not been taken

    def add(self, data: bytes) -> None:
        """More has come."""
        self._more.append(data)
        self.held += len(data)

    @property
    def needed(self) -> int:
        """How many bytes the next message and its prefix have; 0 while the prefix is not there."""
        if not self._needed and self.held >= PREFIX_BYTES:
            at = self._together(PREFIX_BYTES)
            self._needed = PREFIX_BYTES + int.from_bytes(self._buffer[at + 1 : at + PREFIX_BYTES], "big")
        return self._needed

    @property
    def whole(self) -> bool:
        """Whether the next message is there."""
        return 0 < self.needed <= self.held

    def next(self) -> tuple[int, bytes] | None:
        """The first byte of the prefix and the message; None while it is not whole."""
        if not self.whole:
            return None
        needed = self._needed
        at = self._together(needed)
        message = self._buffer[at], self._buffer[at + PREFIX_BYTES : at + needed]
        self._at = at + needed
        self.held -= needed
        self._needed = 0
        if not self.held:
            self._buffer, self._at = b"", 0
        return message

    def next_in_parts(self) -> tuple[int, list[bytes]]:
        """The same of a message that is whole and too large to be joined here: some parts of it."""
        needed = self.needed
        at = self._together(PREFIX_BYTES)
        flag, parts = self._buffer[at], [self._buffer[at + PREFIX_BYTES :], *self._more]
        behind, kept = self.held - needed, collections.deque[bytes]()
        self.held = behind
        while behind:
            last = parts.pop()
            if len(last) > behind:
                parts.append(last[:-behind])
                last = last[-behind:]
            kept.appendleft(last)
            behind -= len(last)
        self._buffer, self._at, self._more, self._needed = b"", 0, list(kept), 0
        return flag, parts

    def clear(self) -> None:
        """Drops everything."""
        self._buffer, self._at, self._more, self._needed, self.held = b"", 0, [], 0, 0

    def _together(self, count: int) -> int:
        """Where in `_buffer` the next so many bytes begin, which are there."""
        if len(self._buffer) - self._at < count:
            self._buffer = b"".join((self._buffer[self._at :], *self._more))
            self._at = 0
            self._more.clear()
        return self._at
