"""Calls of gRPC from their headers to their end, on the thread of the loop; answers come from any thread.

A call that has ended is `done`: nothing is sent on it any more. A client that has gone, by a reset or with its connection,
makes it `gone` as well.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from serving.edge import grpc_wire as wire
from serving.edge.grpc_wire import Inbox
from serving.edge.http2 import WINDOW
from serving.edge.traffic import Route, Traffic
from serving.protocol.codes import Code
from serving.telemetry.timeline import now_ns

log = logging.getLogger(__name__)

COMPRESSED_FROM = 1024  # bytes of an answer to a client that compresses
HASTY_NS = 10**9
Ending = tuple[Code, str] | tuple[Code, str, int]  # with the milliseconds after which the client may try again
DEADLINE_PASSED = Code.DEADLINE_EXCEEDED, "Deadline Exceeded"


class Carrier(Protocol):
    """The connection of a call. On the thread of the loop alone, but for `traffic`.

    `take` and `used` let the client send as many bytes more. `waiting` counts those that wait for the rest of a message, `expect`
    lets the client send a message of so many, `put_aside` counts those of a message that waits to be looked at, until
    `looked_at_aside`: these say why the call is turned away if it is too much. `hold` has `go_on` called when something has
    been sent.
    """

    traffic: Traffic

    def take(self, stream: int, count: int) -> None: ...

    def used(self, stream: int, count: int) -> None: ...

    def waiting(self, count: int) -> tuple[Code, str] | None: ...

    def answer(self, call: OpenCall, message: bytes) -> None: ...

    def send(self, call: OpenCall, message: bytes) -> None: ...

    def finish(self, call: OpenCall, code: Code, message: str, retry_ms: int = 0) -> None: ...

    def unsent_of(self, call: OpenCall) -> int: ...

    def hold(self, call: OpenCall) -> None: ...

    def put_aside(self, count: int) -> tuple[Code, str] | None: ...

    def looked_at_aside(self, count: int) -> None: ...

    def expect(self, call: OpenCall, needed: int) -> tuple[Code, str] | None: ...


class OpenCall:
    """What unary calls and streams have in common."""

    __slots__ = (
        "accepts", "begun", "caller", "connection", "deadline_ns", "done", "encoding", "ended", "gone", "handed", "inbox",
        "moved_ns", "received_ns", "route", "stream", "turn", "window",
    )  # fmt: skip

    def __init__(
        self,
        connection: Carrier,
        stream: int,
        route: Route,
        received_ns: int,
        deadline_ns: int | None,
        encoding: bytes,
    ) -> None:
        self.connection = connection
        self.stream = stream
        self.route = route
        self.received_ns = self.moved_ns = received_ns
        self.deadline_ns = deadline_ns
        self.encoding = encoding  # of the messages that say that they are compressed
        self.caller = ""  # where callers are told apart
        self.accepts = b""  # the encoding of the answers
        self.inbox: Inbox | None = None
        self.window = WINDOW  # bytes that the client may send before any are used
        self.turn = connection.traffic.turn  # in which it was opened
        self.handed = False  # whether a message was handed up
        self.begun = False  # whether a message of the answer was sent
        self.ended = False  # by the client, which sends no more
        self.done = False
        self.gone = False

    def data(self, data: bytes, end: bool) -> None:
        """More of what the client sends."""
        self.ended = self.ended or end
        if self.done:
            self.connection.take(self.stream, len(data))
            return
        if data:
            if self.inbox is None:
                self.inbox = Inbox()
            self.inbox.add(data)
            self.moved_ns = now_ns()
            refusal = self.connection.waiting(len(data))
            if refusal:
                self.refuse(*refusal)
        if not self.done:
            self.go_on()

    def go_on(self) -> None:
        """Takes what has come of messages, if there is room for answers."""
        raise NotImplementedError

    def next(self) -> tuple[int, bytes | list[bytes]] | None:
        """The next message, if it is whole; else its client may send the rest."""
        inbox = self.inbox
        if inbox is None:
            return None
        needed = inbox.needed
        small = needed - wire.PREFIX_BYTES <= self.connection.traffic.small_bytes
        if not small or not 0 < needed <= inbox.held:
            self.want_the_rest()
            if self.done or not inbox.whole:
                return None
        message = inbox.next() if small else inbox.next_in_parts()
        self.connection.used(self.stream, needed)
        return message

    def want_the_rest(self) -> None:
        """The client may send all of the message that it has begun, if it is not too large: then the call ends."""
        if self.inbox and self.inbox.held:
            refusal = self.connection.expect(self, self.inbox.needed)
            if refusal:
                self.refuse(*refusal)

    @property
    def left(self) -> int:
        """Bytes that were not taken."""
        return self.inbox.held if self.inbox else 0

    @property
    def unfinished(self) -> bool:
        """Whether more is to come of a message that has begun."""
        return self.left > 0

    def refuse(self, code: Code, message: str) -> None:
        """Turns the call away, whoever answers it."""
        if not self.done:
            self.connection.traffic.refused(code.name)
            self.end(code, message)
            self.cancel()

    def end(self, code: Code, message: str, retry_ms: int = 0) -> None:
        """The end of the call."""
        if not self.done:
            self.done = True
            self.drop()
            self.connection.finish(self, code, message, retry_ms)

    def drop(self) -> None:
        """Frees what has come and was not taken."""
        if self.inbox and self.inbox.held:
            self.connection.used(self.stream, self.inbox.held)
            self.inbox.clear()

    def closed(self) -> None:
        """The stream is no more."""
        if not self.done:
            self.done = self.gone = True
            self.cancel()
        self.drop()

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        raise NotImplementedError

    def leave(self) -> None:
        """The server leaves: what was asked is answered, and then the call ends."""

    @property
    def answering(self) -> bool:
        """Whether the server may not leave before the call is answered."""
        return False

    def metadata(self, fields: Mapping[bytes, bytes]) -> None:
        """What the client has sent before its first message."""

    @property
    def fruitless(self) -> bool:
        """Whether its client, which goes now, goes at once, or before it has asked for anything though its time is not up."""
        if self.turn == self.connection.traffic.turn:
            return True
        late = self.deadline_ns is not None and now_ns() >= self.deadline_ns
        return not (late or self.done or self.handed)

    @property
    def hasty(self) -> bool:
        """Whether its time may have been up before it was read."""
        return self.deadline_ns is not None and self.deadline_ns - self.received_ns < HASTY_NS

    def tick(self, now: int, message_ns: float) -> None:
        """Looks at the time."""
        if self.done:
            return
        if self.unfinished and now - self.moved_ns > message_ns > 0:
            seconds = message_ns / 1e9
            self.refuse(
                Code.UNAVAILABLE, f"nothing more of a message has come for {seconds:g} s; {self.left} bytes were there"
            )
        elif self.deadline_ns is not None and now >= self.deadline_ns and self.waits:
            self.end(*DEADLINE_PASSED)
            self.cancel()

    @property
    def waits(self) -> bool:
        """Whether nobody else sees to it that the call ends at its deadline."""
        raise NotImplementedError

    def ask(self, flag: int, payload: bytes | list[bytes], asked: Any) -> bool:
        """Has a message, whole or in parts, answered through `asked`; False where that is done aside, since it takes long."""
        connection, route = self.connection, self.route
        if flag or isinstance(payload, list):
            parts = payload if isinstance(payload, list) else [payload]
            size = sum(map(len, parts))
            refusal = connection.put_aside(size)
            if refusal:
                self.refuse(*refusal)
                return True
            connection.traffic.aside.submit(self._ask_aside, flag, parts, size, asked)
            return False
        self.handed = True
        if route.together:
            connection.traffic.burst.append((payload, asked))
        elif route.on:
            route.on.submit(self._ask_if_awaited, payload, asked)
        else:
            route.ask(payload, asked)
        return True

    def _ask_if_awaited(self, payload: bytes, asked: Any) -> None:
        """On a thread of `Route.on`, which may have had much to do before."""
        if not asked.gone:
            self.route.ask(payload, asked)

    def _ask_aside(self, flag: int, parts: list[bytes], size: int, asked: Any) -> None:
        """On a thread of `Traffic.aside`. What nobody waits for any more is not done."""
        if not self.done:
            try:
                self._ask_unpacked(flag, b"".join(parts), asked)
            except wire.TooLarge as error:
                self._post_refusal(asked, Code.RESOURCE_EXHAUSTED, str(error))
            except wire.Malformed as error:
                self._post_refusal(asked, Code.INTERNAL, str(error))
            except Exception as error:
                log.exception("a message could not be read")
                told = f"the message could not be read: {type(error).__name__}: {error}"
                self._post_refusal(asked, Code.INTERNAL, told)
        self.connection.traffic.post(self._asked_aside, size)

    def _ask_unpacked(self, flag: int, payload: bytes, asked: Any) -> None:
        if flag > 1:
            raise wire.Malformed(f"a message begins with {flag}; it must be 0, or 1 where it is compressed")
        if flag:
            payload = wire.decompress(self.encoding, payload, self.connection.traffic.limits.message_bytes)
        asked.unpacked(payload)
        if self.route.on:
            self.route.on.submit(self._ask_if_awaited, payload, asked)
        else:
            self.route.ask(payload, asked)

    def _post_refusal(self, asked: Any, code: Code, message: str) -> None:
        self.connection.traffic.post(lambda refusal: asked.refuse(*refusal), (code, message))

    def _asked_aside(self, held: int) -> None:
        self.connection.looked_at_aside(held)
        self.handed = True
        self.asked_aside()

    def asked_aside(self) -> None:
        """What was done aside is done."""

    def pack(self, deliver: Callable[[bytes], None], payload: bytes) -> None:
        """Has an answer delivered as it travels. From any thread."""
        traffic = self.connection.traffic
        if self.accepts and len(payload) > COMPRESSED_FROM:
            with contextlib.suppress(RuntimeError):  # the port has closed meanwhile
                traffic.aside.submit(self._pack_aside, deliver, payload)
        else:
            traffic.post(deliver, wire.framed(payload))

    def _pack_aside(self, deliver: Callable[[bytes], None], payload: bytes) -> None:
        """On a thread of `Traffic.aside`."""
        traffic = self.connection.traffic
        try:
            message = wire.framed(wire.compress(self.accepts, payload), compressed=True)
        except Exception as error:
            log.exception("an answer could not be compressed")
            told = f"the answer could not be compressed: {type(error).__name__}: {error}"
            self._post_refusal(self, Code.INTERNAL, told)
        else:
            traffic.post(deliver, message)
