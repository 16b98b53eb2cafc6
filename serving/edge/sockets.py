"""Connections as bytes: one thread, `epoll`, and nothing known of what is spoken on them.

The thread never waits but for the network. It reads a bounded piece of each connection in turn, so that no client can keep
it for itself, lets whoever speaks on the connection have it, and sends at the end of the turn what has come together. Whatever
other threads want of a connection they `post`.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from serving.errors import StartupError
from serving.telemetry.timeline import now_ns

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024  # of one connection in one turn
SLICE_BYTES = 4 * 1024  # of these, what is looked at before the speaker may say that it has enough for this turn
BACKLOG = 1024
TICK_NS = 1_000_000_000  # how often time-outs are looked at
CLOSING_SECONDS = 5  # what a connection that is being closed may take to send its last bytes
HANDSHAKERS = 2
ACCEPT_PAUSE_NS = 200_000_000  # after a connection could not be accepted
TLS_HANDSHAKE = 0x16  # the first byte of every TLS connection


Posted = tuple[Callable[[Any], None], Any]  # what is to be called, and with what


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


class Counts:
    """What is told of the connections. Written by the thread of the loop alone."""

    def __init__(self) -> None:
        self.open = 0
        self.accepted = 0
        self.closed: dict[str, int] = {}  # by us, by reason

    def close(self, reason: str) -> None:
        """A connection is closed by us."""
        self.closed[reason] = self.closed.get(reason, 0) + 1


class Link:
    """One connection, as the loop sees it."""

    __slots__ = (
        "closing_ns", "events", "fd", "first", "handshaking", "heard_ns", "loop", "moved_ns", "opened_ns", "sock", "speaker", "unread",
        "unsent", "wants",
    )  # fmt: skip

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.speaker: Speaker | None = None
        self.opened_ns = self.heard_ns = self.moved_ns = now_ns()
        self.closing_ns = 0  # when it was decided to close it
        self.handshaking = False
        self.events = 0  # what it is registered for
        self.wants = 0  # what the handshake waits for
        self.first = b""  # what has come before it was seen who speaks
        self.unread = b""  # what was read and is for the next turn
        self.unsent: memoryview | None = None

    def flush(self) -> None:
        """There is something to send; it goes out at the end of the turn. On the thread of the loop alone."""
        self.loop.dirty[self] = None


class Loop:
    """The thread, the listening socket and the connections.

    `speak` is given a new connection and its first bytes, and says who speaks on it; None while that is not to be seen yet. It
    raises `Closed`. `turn` is called in each turn when everything has been read and before anything is sent. Raises `StartupError`
    when the address cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        speak: Callable[[Link, bytes], Speaker | None],
        turn: Callable[[], None],
        *,
        encryption: Encryption | None = None,
        most: int,
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        self._speak = speak
        self._turn = turn
        self._encryption = encryption
        self._most = most
        self._timeouts = timeouts
        self.counts = Counts()
        self.links: dict[int, Link] = {}
        self.dirty: dict[Link, None] = {}  # in the order in which they had something to send
        self._again: dict[Link, None] = {}  # which have more to read than one turn takes
        self._posted: collections.deque[Posted] = collections.deque()
        self._sleeping = False
        self._over = False
        self._next_tick = 0
        self._accept_again_ns = 0
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._handshakers = ThreadPoolExecutor(HANDSHAKERS, thread_name_prefix="handshake") if encryption else None
        self._listener: socket.socket | None = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]
        self._poller = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller.register(self._wake_fd, select.EPOLLIN)
        self._poller.register(self._listener.fileno(), select.EPOLLIN)
        self._listener_fd = self._listener.fileno()
        self._thread = threading.Thread(target=self._run, name="edge", daemon=True)

    def start(self) -> None:
        """Begins to accept."""
        self._thread.start()

    # From any thread.

    def post(self, action: Callable[[Any], None], argument: Any = None) -> None:
        """Calls `action` with the argument on the thread of the loop, soon."""
        self._posted.append((action, argument))
        self._wake()

    def post_all(self, actions: Iterable[Posted]) -> None:
        """Likewise for many, in their order."""
        self._posted.extend(actions)
        self._wake()

    def _wake(self) -> None:
        if self._sleeping:
            self._sleeping = False
            with contextlib.suppress(BlockingIOError):  # it is awake already, by a very high count
                os.eventfd_write(self._wake_fd, 1)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def join(self, timeout_seconds: float) -> bool:
        """Waits for the end of the thread; False when it is not through within the time given."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    # On the thread of the loop.

    def close_listener(self) -> None:
        """No new connections from now on."""
        if self._listener:
            self._poller.unregister(self._listener_fd)
            self._listener.close()
            self._listener = None

    def end(self) -> None:
        """Closes every connection as it is, and ends the thread with this turn."""
        self._over = True

    def close(self, link: Link, reason: str) -> None:
        """Closes a connection when what it has to send has been sent."""
        if not link.closing_ns and self.links.get(link.fd) is link:
            link.closing_ns = now_ns()
            self.counts.close(reason)
            self._again.pop(link, None)
            self.dirty[link] = None

    def drop(self, link: Link) -> None:
        """The connection is no more."""
        if self.links.get(link.fd) is not link:
            return
        del self.links[link.fd]
        self.dirty.pop(link, None)
        self._again.pop(link, None)
        self.counts.open -= 1
        if not link.handshaking:
            self._close_socket(link)
        if link.speaker:
            link.speaker.lost()

    def _run(self) -> None:
        try:
            while not self._over:
                self._once()
        except BaseException:
            log.critical("the edge has failed; no request can be answered any more", exc_info=True)
            os._exit(70)  # a server that listens and never answers is worse than none
        finally:
            self.close_listener()
            for link in list(self.links.values()):
                self.drop(link)
            if self._handshakers:
                self._handshakers.shutdown(wait=False, cancel_futures=True)
            self._poller.close()

    def _once(self) -> None:
        self._sleeping = True  # before it is looked whether there is something, so that nothing is slept through
        ready = self._poller.poll(0 if self._posted or self._again or self.dirty else self._patience())
        self._sleeping = False
        again, self._again = self._again, {}
        for fd, event in ready:
            link = self.links.get(fd)
            if link is not None:
                if event & select.EPOLLOUT:
                    self.dirty[link] = None
                if event & ~select.EPOLLOUT and link not in again:
                    self._read(link)
            elif fd == self._listener_fd and self._listener:
                self._accept()
            elif fd == self._wake_fd:
                os.eventfd_read(fd)
        for link in again:
            self._read(link)
        self._turn()
        for _ in range(len(self._posted)):
            action, argument = self._posted.popleft()
            action(argument)
        if self.dirty:
            dirty, self.dirty = self.dirty, {}
            for link in dirty:
                self._send(link)
        now = now_ns()
        if now >= self._next_tick:
            self._tick(now)

    def _patience(self) -> float | None:
        return max(0.0, (self._next_tick - now_ns()) / 1e9) if self.links or self._accept_again_ns else None

    def _accept(self) -> None:
        assert self._listener
        for _ in range(64):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.error("no connection can be accepted for now: %s", error.strerror)
                    self._poller.modify(self._listener_fd, 0)
                    self._accept_again_ns = now_ns() + ACCEPT_PAUSE_NS
                    return
                continue  # that one connection is gone already
            self.counts.accepted += 1
            if len(self.links) >= self._most:
                self.counts.close("too_many_connections")
                sock.close()
                continue
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self, sock)
        self.links[link.fd] = link
        self.counts.open += 1
        self._register(link, select.EPOLLIN)

    def _register(self, link: Link, events: int) -> None:
        if events == link.events:
            return
        if not link.events:
            self._poller.register(link.fd, events)
        elif events:
            self._poller.modify(link.fd, events)
        else:
            self._poller.unregister(link.fd)
        link.events = events

    def _begin_encryption(self, link: Link) -> None:
        """Wraps the socket when the first byte of a handshake is there: what is no TLS at all is told from it by that."""
        assert self._encryption
        try:
            first = link.sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first:
            self.drop(link)
        elif first[0] != TLS_HANDSHAKE:
            self.counts.close("not_tls")
            self.drop(link)
        else:
            self._shake_hands(link)

    def _shake_hands(self, link: Link) -> None:
        """A step of the handshake, which may take a millisecond, on another thread; nobody else touches the socket meanwhile."""
        assert self._handshakers
        link.handshaking = True
        self._register(link, 0)
        self._handshakers.submit(self._step, link)

    def _step(self, link: Link) -> None:
        """On a thread of `_handshakers`."""
        assert self._encryption
        events = None
        try:
            if not isinstance(link.sock, ssl.SSLSocket):
                context = self._encryption.context()
                link.sock = context.wrap_socket(link.sock, server_side=True, do_handshake_on_connect=False)
            link.sock.do_handshake()
            events = 0
        except ssl.SSLWantReadError:
            events = select.EPOLLIN
        except ssl.SSLWantWriteError:
            events = select.EPOLLOUT
        except (OSError, ValueError):
            pass  # no TLS, no certificate that we know, or gone: told by counts.closed
        self.post(self._stepped, (link, events))

    def _stepped(self, step: tuple[Link, int | None]) -> None:
        link, events = step
        link.handshaking = False
        if self.links.get(link.fd) is not link:
            self._close_socket(link)  # it was dropped meanwhile
        elif events is None:
            self.counts.close("handshake")
            self.drop(link)
        elif events:
            link.wants = events
            self._register(link, events)
        else:
            link.wants = 0
            self._register(link, select.EPOLLIN)
            self._again[link] = None  # bytes of the client may have come with its last of the handshake

    def _read(self, link: Link) -> None:
        if link.handshaking or link.closing_ns:
            if link.closing_ns:
                self._discard(link)
            return
        if self._encryption and not isinstance(link.sock, ssl.SSLSocket):
            self._begin_encryption(link)
            return
        if link.wants:
            self._shake_hands(link)
            return
        if link.unread:
            data = memoryview(link.unread)
            link.unread = b""
            self._hand_up(link, data)
            return
        try:
            count = link.sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            count = 0
        if not count:
            self.drop(link)
            return
        link.heard_ns = now_ns()
        if count == READ_BYTES or (self._encryption and link.sock.pending()):  # type: ignore[attr-defined]
            self._again[link] = None
        self._hand_up(link, self._buffer[:count])

    def _hand_up(self, link: Link, data: memoryview) -> None:
        try:
            if link.speaker is None:
                link.first += data
                link.speaker = self._speak(link, link.first)
                if link.speaker is None:
                    return
                data, link.first = memoryview(link.first), b""
            speaker, place, count = link.speaker, 0, len(data)
            while place < count:
                more = speaker.receive(data[place : place + SLICE_BYTES])
                place += SLICE_BYTES
                if not more and place < count:
                    link.unread = bytes(data[place:])
                    self._again[link] = None
                    break
        except Closed as reason:
            self.close(link, str(reason))
        self.dirty[link] = None

    def _discard(self, link: Link) -> None:
        """What comes while the last bytes go out: read, so that the end of the connection is seen, and not looked at."""
        try:
            count = link.sock.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            count = 0
        if not count:
            self.drop(link)

    def _send(self, link: Link) -> None:
        if self.links.get(link.fd) is not link or link.handshaking or link.wants:
            return
        speaker = link.speaker
        while True:
            if link.unsent is None:
                try:
                    data = speaker.output() if speaker else b""
                except Closed as reason:
                    self.counts.close(str(reason))
                    self.drop(link)
                    return
                if not data:
                    break
                unsent = memoryview(data)
            else:
                unsent = link.unsent
            try:
                count = link.sock.send(unsent)
            except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                count = 0
            except OSError:
                self.drop(link)
                return
            if count:
                link.moved_ns = now_ns()
            if count < len(unsent):
                link.unsent = unsent[count:]
                self._register(link, select.EPOLLIN | select.EPOLLOUT)
                return
            link.unsent = None
        if link.events & select.EPOLLOUT:
            self._register(link, select.EPOLLIN)
        if speaker:
            speaker.sent_all()
        if link.closing_ns:
            self._finish(link)

    def _finish(self, link: Link) -> None:
        """Everything has been sent: the client is told so, and has a moment to go; what it still sends is not answered by a reset."""
        try:
            link.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.drop(link)

    def _tick(self, now: int) -> None:
        self._next_tick = now + TICK_NS
        if self._accept_again_ns and self._listener and now >= self._accept_again_ns:
            self._accept_again_ns = 0
            self._poller.modify(self._listener_fd, select.EPOLLIN)
        for link in list(self.links.values()):
            if link.closing_ns:
                if now - link.closing_ns > CLOSING_SECONDS * 1e9:
                    self.drop(link)
            elif link.speaker is None:
                if now - link.opened_ns > self._timeouts.handshake * 1e9:
                    self.counts.close("handshake_timeout")
                    self.drop(link)
            elif link.unsent is not None and now - link.moved_ns > self._timeouts.stalled * 1e9:
                self.counts.close("not_reading")
                self.drop(link)
            else:
                try:
                    link.speaker.tick(now)
                except Closed as reason:
                    self.close(link, str(reason))

    def _close_socket(self, link: Link) -> None:
        with contextlib.suppress(OSError):  # a socket that could not be wrapped is closed already
            self._register(link, 0)
        link.sock.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if family == socket.AF_INET and not host.replace(".", "").isdigit():
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        else:
            address = (host, port)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise StartupError(
            f"the gRPC address {host}:{port} cannot be bound: the port is taken or the host is not one of this machine "
            f"({error.strerror}); choose others with --host and --grpc-port"
        ) from error
    listener.setblocking(False)
    return listener
