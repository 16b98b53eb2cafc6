"""One connection as bytes, and what is told of all: plain data between the loop and whoever speaks on them."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import NamedTuple, Protocol

from serving.edge.bucket import Bucket
from serving.telemetry.timeline import now_ns

log = logging.getLogger(__name__)


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


# Why we close a connection, and what that means; each is counted from 0, so that a rate sees the first.
REASONS = {
    "age": "it became older than `--grpc-max-connection-age`, and was still there some seconds after it was asked to go; a "
    "client that goes by itself, as most do, is not counted",
    "exit": "the server leaves",
    "failure": "a fault of the server, of which its log tells",
    "flood": "its client began calls and cancelled them at once, or sent pings, settings or empty frames, too often",
    "handshake": "TLS could not be agreed upon: no certificate, a wrong one or one that has expired, no common version",
    "handshake_timeout": "nothing that begins a call, or a TLS handshake, came within 10 s",
    "idle": "it had no call for longer than `--grpc-max-connection-idle`",
    "keepalive_timeout": "its client did not answer when it was asked whether it is there",
    "left": "its client has said that it goes",
    "not_http2": "its client speaks HTTP/1.1 or something else",
    "not_reading": "its client takes nothing of what it is sent, for 60 s, or while all clients together leave too much unread",
    "not_tls": "its client does not speak TLS on a port that wants it",
    "protocol_error": "its client has broken the rules of HTTP/2, or sent headers without an end",
    "too_many_connections": "there was no room for one more",
}
# In the log, since somebody may have to look after these clients; a failure is told with its traceback.
TOLD = frozenset(REASONS) - {"age", "exit", "failure", "idle", "left"}
TOLD_AT_ONCE, TOLD_A_SECOND = 10, 1 / 6


class Counts:
    """What is told of the connections. Written by the thread of the loop alone, but for `calls`, which is that of the calls."""

    def __init__(self) -> None:
        self.open = 0
        self.accepted = 0
        self.calls = 0  # that are open
        self.closed = dict.fromkeys(REASONS, 0)  # by us, by reason
        self._untold = 0
        self._telling = Bucket(TOLD_AT_ONCE, TOLD_A_SECOND)

    def close(self, reason: str, peer: str, trouble: str = "") -> None:
        """A connection of `peer` is closed by us; `trouble` is what was found of it, beside the reason."""
        self.closed[reason] += 1
        if reason not in TOLD:
            return
        if not self._telling.take(now_ns()):
            self._untold += 1
            return
        more = f" ({trouble})" if trouble else ""
        untold, self._untold = self._untold, 0
        also = f"; {untold} more since were not told" if untold else ""
        log.warning(
            "a connection of %s is closed, %s: %s%s%s", peer, reason, REASONS[reason].replace("`", ""), more, also
        )


class Owner(Protocol):
    """The loop, as a connection sees it: `dirty` has the connections with something to send."""

    dirty: dict[Link, None]

    def close(self, link: Link, reason: str) -> None: ...

    def cut_off(self, link: Link, reason: str) -> None: ...


class Link:
    """One connection, as the loop sees it."""

    __slots__ = (
        "_owner", "caller", "closing_ns", "events", "fd", "first", "handshaking", "moved_ns", "opened_ns", "peer", "plain",
        "sock", "speaker", "trouble", "unread", "unsent",
    )  # fmt: skip

    def __init__(self, owner: Owner, sock: socket.socket, peer: str) -> None:
        self._owner = owner
        self.sock = sock
        self.peer = peer
        self.caller = ""  # the subject of its certificate, where it has shown one
        self.trouble = ""  # what was found of it, if it is to be closed
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
