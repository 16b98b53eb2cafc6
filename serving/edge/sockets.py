"""Connections as bytes: one thread, `epoll`, and nothing known of what is spoken on them.

The thread never waits but for the network. It reads a bounded piece of each connection in turn, so that no client can keep
it for itself, lets whoever speaks on the connection have it, and sends at the end of the turn what has come together. Whatever
other threads want of a connection they `post`.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Any

from serving.edge import handshakes
from serving.edge.handshakes import DONE, FAILED, Handshakes
from serving.edge.links import Closed, Counts, Encryption, Link, Speaker, Timeouts
from serving.edge.listening import Listening
from serving.telemetry.timeline import now_ns

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024  # of one connection in one turn
SLICE_BYTES = 4 * 1024  # of these, what is looked at before the speaker may say that it has enough for this turn
TICK_SECONDS = 1.0  # how often time-outs are looked at
CLOSING_NS = 5_000_000_000  # what a connection that is being closed may take to send its last bytes
EXIT_CODE = 70

Posted = tuple[Callable[[Any], None], Any]  # what is to be called, and with what

_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Loop:
    """The thread, the listening socket and the connections.

    `speak` is given a new connection and its first bytes, and says who speaks on it; None while that is not to be seen yet.
    `turn` is called in each turn when everything has been read and before anything is sent, and again at its end. `most`
    connections are let in.
    Raises `StartupError` when the address cannot be bound.
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
        timeouts: Timeouts,
    ) -> None:
        self._speak = speak
        self._turn = turn
        self._most = most
        self._timeouts = timeouts
        self._handshakes = Handshakes(encryption, self.post, self._stepped) if encryption else None
        self.counts = Counts()
        self.links: dict[int, Link] = {}
        self.dirty: dict[Link, None] = {}  # in the order in which they had something to send
        self._again: dict[Link, None] = {}  # which have more to read than one turn takes
        self._posted: collections.deque[Posted] = collections.deque()
        self._sleeping = False
        self._over = False
        self._next_tick = 0
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._poller = select.epoll()
        try:
            self._listening = Listening(host, port, self._poller)
        except BaseException:
            self._poller.close()
            raise
        self.port = self._listening.port
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller.register(self._wake_fd, select.EPOLLIN | select.EPOLLET)  # by its edge: nobody need read it
        self._thread = threading.Thread(target=self._run, name="edge", daemon=True)

    def start(self) -> None:
        """Begins to accept."""
        self._thread.start()

    # From any thread.

    def post(self, action: Callable[[Any], None], argument: Any = None) -> None:
        """Calls `action` with the argument on the thread of the loop, soon."""
        self._posted.append((action, argument))
        if self._sleeping:
            self._wake()

    def post_all(self, actions: Iterable[Posted]) -> None:
        """Likewise for many, in their order."""
        self._posted.extend(actions)
        if self._sleeping:
            self._wake()

    def _wake(self) -> None:
        self._sleeping = False
        with contextlib.suppress(OSError):  # the loop has ended
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
        self._listening.close()

    def end(self) -> None:
        """Closes every connection as it is, and ends the thread with this turn."""
        self._over = True

    def close(self, link: Link, reason: str) -> None:
        """Closes a connection when what it has to send has been sent."""
        if not link.closing_ns and self.links.get(link.fd) is link:
            link.closing_ns = now_ns()
            self.counts.close(reason, link.peer, link.trouble)
            self._again.pop(link, None)
            self.dirty[link] = None

    def cut_off(self, link: Link, reason: str) -> None:
        """Closes a connection as it is."""
        self.counts.close(reason, link.peer, link.trouble)
        self.drop(link)

    def drop(self, link: Link) -> None:
        """The connection is no more."""
        if self.links.get(link.fd) is not link:
            return
        del self.links[link.fd]
        self.dirty.pop(link, None)
        self._again.pop(link, None)
        self.counts.open -= 1
        if not link.handshaking:  # else it is closed when the step is done
            self._close_socket(link)
        if link.speaker:
            link.speaker.lost()

    def _run(self) -> None:
        try:
            while not self._over:
                self._once()
        except BaseException:
            log.critical("the edge has failed; no request can be answered any more", exc_info=True)
            os._exit(EXIT_CODE)  # a server that listens and never answers is worse than none
        finally:
            self._listening.close()
            if self._handshakes:
                self._handshakes.close()
            for link in list(self.links.values()):
                link.handshaking = False  # nobody does any more
                self.drop(link)
            self._poller.close()
            os.close(self._wake_fd)

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
            elif fd == self._listening.fd:
                self._accept()
        for link in again:
            self._read(link)
        self._turn()
        self._run_posted()
        if self.dirty:
            dirty, self.dirty = self.dirty, {}
            for link in dirty:
                self._send(link)
        self._turn()  # answers, and what was sent, have made room for messages that have waited
        if self.links or self._listening.resting:
            now = now_ns()
            if now >= self._next_tick:
                self._tick(now)

    def _run_posted(self) -> None:
        for _ in range(len(self._posted)):
            action, argument = self._posted.popleft()
            try:
                action(argument)
            except Exception:
                log.exception("what another thread wanted of a connection has failed")

    def _patience(self) -> float | None:
        return TICK_SECONDS if self.links or self._listening.resting else None

    def _accept(self) -> None:
        for accepted, peer in self._listening.accept():
            self.counts.accepted += 1
            if len(self.links) >= self._most:
                self.counts.close("too_many_connections", peer, f"{self._most} are open")
                accepted.close()
                continue
            link = Link(self, accepted, peer)
            link.plain = self._handshakes is None
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

    def _shake_hands(self, link: Link) -> None:
        """Begins, when the first byte is there: by that what is no TLS at all is told from it; or goes on."""
        assert self._handshakes
        begins = True if isinstance(link.sock, ssl.SSLSocket) else handshakes.begins(link)
        if begins:
            self._register(link, 0)
            self._handshakes.step(link)
        else:
            if begins is False:
                self.counts.close("not_tls", link.peer)
            self.drop(link)

    def _stepped(self, step: tuple[Link, int]) -> None:
        link, awaited = step
        link.handshaking = False
        if self.links.get(link.fd) is not link:
            self._close_socket(link)  # it was dropped meanwhile
        elif awaited == FAILED:
            self.cut_off(link, "handshake")
        elif awaited == DONE:
            link.plain = True
            self._register(link, select.EPOLLIN)
            self._again[link] = None  # something may have come with the last of the handshake
        else:
            self._register(link, awaited)

    def _read(self, link: Link) -> None:
        if link.handshaking:
            return
        if not link.plain and not link.closing_ns:
            self._shake_hands(link)
            return
        if link.unread:
            data, link.unread = memoryview(link.unread), b""
        else:
            count = self._receive(link)
            if not count:
                return
            if count == READ_BYTES:
                self._again[link] = None
            data = self._buffer[:count]
        if not link.closing_ns:  # else it is read so that the end is seen, and not looked at
            self._hand_up(link, data)

    def _receive(self, link: Link) -> int:
        """How many bytes of the connection are in the buffer; where it has ended, it is dropped.

        TLS gives a record at a time, which may be as short as one request; so all that are there are read.
        """
        count = 0
        try:
            count = link.sock.recv_into(self._buffer)
            over = not count
            while self._handshakes and 0 < count < READ_BYTES and not over:
                more = link.sock.recv_into(self._buffer[count:])
                count += more
                over = not more
        except _NOT_NOW:
            over = False
        except OSError:
            over = True
        if over and not count:
            self.drop(link)
        elif over:
            self._again[link] = None  # what came before the end is looked at first
        return count

    def _hand_up(self, link: Link, data: memoryview) -> None:
        try:
            if link.speaker is None:
                link.first += data
                link.speaker = self._speak(link, link.first)
                if link.speaker is None:
                    return
                data, link.first = memoryview(link.first), b""
            receive, place, count = link.speaker.receive, 0, len(data)
            while place < count:
                more = receive(data[place : place + SLICE_BYTES] if count > SLICE_BYTES else data)
                place += SLICE_BYTES
                if not more and place < count:
                    link.unread = bytes(data[place:])
                    self._again[link] = None
                    break
        except Closed as reason:
            self.close(link, str(reason))
        except Exception:  # noqa: BLE001 - border: of one connection, told by _fails
            self._fails(link)
        self.dirty[link] = None

    def _send(self, link: Link) -> None:
        speaker = link.speaker
        if speaker is None or link.handshaking or self.links.get(link.fd) is not link:
            return
        try:
            while unsent := link.unsent or speaker.output():
                try:
                    count = link.sock.send(unsent)
                except _NOT_NOW:
                    count = 0
                if count:
                    link.moved_ns = now_ns()
                if count < len(unsent):
                    link.unsent = memoryview(unsent)[count:]
                    self._register(link, select.EPOLLIN | select.EPOLLOUT)
                    return
                link.unsent = None
            if link.events & select.EPOLLOUT:
                self._register(link, select.EPOLLIN)
            speaker.sent_all()
            if link.closing_ns:
                # The client has a moment to go: a reset could overtake the last bytes.
                link.sock.shutdown(socket.SHUT_WR)
        except Closed as reason:
            self.cut_off(link, str(reason))
        except OSError:
            self.drop(link)
        except Exception:  # noqa: BLE001 - border
            self._fails(link)

    def _fails(self, link: Link) -> None:
        """A fault of ours, seen while this connection was served: the others go on."""
        log.exception("a connection of %s is closed, since serving it has failed", link.peer)
        self.cut_off(link, "failure")

    def _tick(self, now: int) -> None:
        self._next_tick = now + int(TICK_SECONDS * 1e9)
        self._listening.try_again()
        for link in list(self.links.values()):
            if link.closing_ns:
                if now - link.closing_ns > CLOSING_NS:
                    self.drop(link)
            elif link.speaker is None:
                if now - link.opened_ns > self._timeouts.handshake * 1e9:
                    self.cut_off(link, "handshake_timeout")
            elif link.unsent is not None and now - link.moved_ns > self._timeouts.stalled * 1e9:
                self.cut_off(link, "not_reading")
            else:
                try:
                    link.speaker.tick(now)
                except Closed as reason:
                    self.close(link, str(reason))
                except Exception:  # noqa: BLE001 - border
                    self._fails(link)

    def _close_socket(self, link: Link) -> None:
        with contextlib.suppress(OSError):  # one that could not be wrapped is closed already
            self._register(link, 0)
        link.sock.close()
