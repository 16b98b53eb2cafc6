"""One connection as bytes, and what is told of all: plain data between the loop and whoever speaks on them."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple, Protocol

from serving.telemetry.timeline import now_ns


class Closed(Exception):
    """The connection is to be closed as soon as what there is to send has been sent; `str(error)` is the reason, one word."""


class Speaker(Protocol):
    """What is spoken on one connection. Called on the thread of the loop alone.

    `receive` takes bytes, and says whether it wants more of the connection in this turn. `output` gives what is to be sent now;
    `sent_all` is called when nothing of that is left here. `tick` is called about once a second. `receive`, `output` and `tick`
    raise `Closed`. `lost` is called once, when the connection is no more.
    """

    def receive(self, data: memoryview) -> bool: ...

    def output(self) -> bytes: ...

    def sent_all(self) -> None: ...

    def tick(self, now: int) -> None: ...

    def lost(self) -> None: ...


class Encryption(Protocol):
    """Where the context of a new connection comes from, so that a renewed certificate is used."""

    def context(self) -> ssl.SSLContext: ...


class Timeouts(NamedTuple):
    """Seconds."""

    handshake: float = 10.0  # for TLS, and for the first bytes
    stalled: float = 60.0  # for a client that takes nothing of what it is sent


# Why we close a connection; each is counted from 0, so that a rate sees the first.
REASONS = (
    "age", "exit", "failure", "flood", "handshake", "handshake_timeout", "idle", "keepalive_timeout", "left", "not_http2",
    "not_reading", "not_tls", "protocol_error", "too_many_connections",
)  # fmt: skip


class Counts:
    """What is told of the connections. Written by the thread of the loop alone."""

    def __init__(self) -> None:
        self.open = 0
        self.accepted = 0
        self.closed = dict.fromkeys(REASONS, 0)  # by us, by reason

    def close(self, reason: str) -> None:
        """A connection is closed by us."""
        self.closed[reason] += 1


class Owner(Protocol):
    """The loop, as a connection sees it: `dirty` has the connections with something to send."""

    dirty: dict[Link, None]

    def close(self, link: Link, reason: str) -> None: ...

    def cut_off(self, link: Link, reason: str) -> None: ...


class Link:
    """One connection, as the loop sees it."""

    __slots__ = (
        "_owner", "closing_ns", "events", "fd", "first", "handshaking", "moved_ns", "opened_ns", "plain", "sock", "speaker",
        "unread", "unsent",
    )  # fmt: skip

    def __init__(self, owner: Owner, sock: socket.socket) -> None:
        self._owner = owner
        self.sock = sock
        self.fd = sock.fileno()
        self.speaker: Speaker | None = None
        self.opened_ns = self.moved_ns = now_ns()
        self.closing_ns = 0  # when it was decided to close it
        self.handshaking = False
        self.events = 0  # what it is registered for
        self.plain = False  # whether its bytes are what is spoken, which they are after a handshake too
        self.first = b""  # what has come before it was seen who speaks
        self.unread = b""  # what was read and is for the next turn
        self.unsent: memoryview | None = None

    def flush(self) -> None:
        """There is something to send; it goes out at the end of the turn. On the thread of the loop alone."""
        self._owner.dirty[self] = None

    def close(self, reason: str) -> None:
        """It is to be closed when what there is to send has been sent. On the thread of the loop alone."""
        self._owner.close(self, reason)

    def cut_off(self, reason: str) -> None:
        """It is closed as it is. On the thread of the loop alone."""
        self._owner.cut_off(self, reason)
