"""gRPC over one connection of HTTP/2: who is let in, windows, time-outs, floods, and leaving."""

from __future__ import annotations

import random

from serving.edge import grpc_wire as wire
from serving.edge import http2
from serving.edge.bucket import Bucket
from serving.edge.grpc_admission import HEADERS, Refused, admitted
from serving.edge.grpc_calls import OpenCall
from serving.edge.grpc_wire import Headers
from serving.edge.http2 import Broken, Http2
from serving.edge.links import Closed, Link
from serving.edge.traffic import Traffic
from serving.protocol.codes import Code
from serving.telemetry.timeline import now_ns

EVENTS_A_TURN = 512  # of one connection, before others have their turn
# Calls whose clients have gone before anything could be done for them: at once, and a second. What is more than that is an
# attack (CVE-2023-44487). A client whose deadlines are short is not to blame for as many when a server lags behind.
FRUITLESS = 1000, 100.0
HASTY = 10_000, 5000.0
# Pings and settings of a client that asks for nothing between them. grpcio's clients ask no more often than every 10 s.
UNASKED = 100, 1.0
AGE_JITTER = 0.9, 1.1  # of the age, so that clients that came together do not go together
# As gRPC's own servers say it, where they do.
LAST_WORDS = {"age": b"max_age", "idle": b"max_idle", "exit": b"server exiting"}

_ENDING_OK = wire.ending(Code.OK)
_ENCODED: dict[bytes, Headers] = {
    encoding: (*HEADERS, (b"grpc-encoding", encoding), (b"grpc-accept-encoding", wire.ACCEPTED))
    for encoding in (b"", *wire.WINDOW_BITS)
}
_ENCODED[b""] = HEADERS


class GrpcConnection:
    """See `serving.edge.sockets.Speaker` and `serving.edge.http2.Listener`."""

    def __init__(self, link: Link, traffic: Traffic) -> None:
        self.traffic = traffic
        self._link = link
        self._http2 = Http2(self)
        self._calls: dict[int, OpenCall] = {}
        self._held: dict[OpenCall, None] = {}  # streams that wait until some of their answers have been sent
        self._early: dict[int, int] = {}  # streams that have ended before their client has, and in which turn
        self.unfinished = 0  # bytes of messages that are not whole
        self._aside = 0  # bytes of messages that wait to be looked at
        self.unsent = 0  # bytes of answers that were not sent at once
        self._turn = -1
        self._events = 0  # in this turn
        self._fruitless = Bucket(*FRUITLESS)
        self._hasty = Bucket(*HASTY)
        self._unasked = Bucket(*UNASKED)
        self._moved = True  # whether something of a call has come or gone since the client's last ping
        self._heard_ns = self._busy_ns = now_ns()
        self._pinged_ns = 0
        self._leaving_ns = 0
        self._why = ""  # it leaves
        self._jitter = random.uniform(*AGE_JITTER)
        self._last_said = False
        traffic.connections[self] = None
        link.flush()

    # For the loop.

    def receive(self, data: memoryview) -> bool:
        if self._turn != self.traffic.turn:
            self._turn, self._events = self.traffic.turn, 0
        try:
            events = self._http2.receive(data)
        except Broken as error:
            self._link.trouble = str(error)
            raise Closed("protocol_error") from error
        if events:
            self._heard_ns = now_ns()
        self._events += events
        return self._events < EVENTS_A_TURN

    def output(self) -> bytes:
        try:
            data = self._http2.output()
            if data:
                self._http2.tell()
        except Broken as error:
            raise Closed("protocol_error") from error
        unsent = self._http2.unsent
        if unsent != self.unsent:
            self._moved = True
            self.traffic.unsent += unsent - self.unsent
            self.unsent = unsent
            self.traffic.bound()
        return data

    def sent_all(self) -> None:
        if self._early:
            self._end_early()
        if self._held:
            held, self._held = self._held, {}
            for call in held:
                call.go_on()

    def tick(self, now: int) -> None:
        limits = self.traffic.limits
        for call in list(self._calls.values()):
            call.tick(now, limits.message_seconds * 1e9)
        if self._leaving_ns:
            self._tick_leaving(now)
        elif _over(now - self._link.opened_ns, limits.age_seconds * self._jitter):
            self.leave(now, "age")
        elif not self._calls and _over(now - self._busy_ns, limits.idle_seconds):
            self.leave(now, "idle")
        if _over(now - self._heard_ns, limits.keepalive_seconds):
            if not self._pinged_ns:
                self._pinged_ns = now
                self._http2.ping()
                self._link.flush()
            elif _over(now - self._pinged_ns, limits.keepalive_timeout_seconds):
                raise Closed("keepalive_timeout")

    def lost(self) -> None:
        traffic = self.traffic
        del traffic.connections[self]
        calls, self._calls = self._calls, {}
        for call in calls.values():
            traffic.changed(-1)
            call.closed()
        traffic.unsent -= self.unsent
        self.unsent = 0
        self._held.clear()
        self._http2.forget()  # it leads back here, and would keep all that was not sent until somebody collects garbage

    # Leaving.

    def leave(self, now: int, why: str) -> None:
        """No more calls are wanted here; those that are open, or on the way, are answered."""
        if not self._leaving_ns:
            self._leaving_ns, self._why = now, why
            self._http2.announce_end()
            self._link.flush()

    def leave_calls(self) -> None:
        """Streams end when what they have taken in is answered."""
        for call in list(self._calls.values()):
            call.leave()

    @property
    def answering(self) -> bool:
        """Whether an inference is to be answered here."""
        return any(call.answering for call in self._calls.values())

    def say_the_last(self) -> None:
        """What comes from now on is not taken."""
        if not self._last_said:
            self._last_said = True
            self._http2.end(why=LAST_WORDS.get(self._why, b""))
            self._link.flush()

    def _tick_leaving(self, now: int) -> None:
        self.say_the_last()  # the client has had a second to hear of it
        if not self._calls and not self.unsent:
            raise Closed(self._why)
        if _over(now - self._leaving_ns, self.traffic.limits.age_grace_seconds):
            raise Closed(self._why)

    # For HTTP/2.

    def requested(self, stream: int, headers: Headers, end: bool) -> None:
        fields = dict(headers)
        self._moved = True
        traffic, now = self.traffic, now_ns()
        try:
            route, deadline_ns, encoding, caller = admitted(
                fields, headers, traffic, len(self._calls), self.unsent, now
            )
        except Refused as refused:
            if refused.code:
                traffic.refused(refused.code.name)
            self._http2.refuse(stream, refused.answer)
            self._early_end(stream, end)
            return
        call = route.open(self, stream, route, now, deadline_ns, encoding)
        call.caller = caller or self._link.caller
        if encoding in wire.WINDOW_BITS and encoding in fields.get(b"grpc-accept-encoding", b""):
            call.accepts = encoding
        call.metadata(fields)
        self._calls[stream] = call
        traffic.changed(1)
        if end:
            call.data(b"", True)

    def data(self, stream: int, data: bytes, end: bool) -> None:
        call = self._calls.get(stream)
        if call is not None:
            if data:
                self._moved = True
            elif not end:
                self._strike()
            call.data(data, end)
        else:
            if end:
                self._early.pop(stream, None)
            if data:
                self._http2.take(stream, len(data))

    def closed(self, stream: int, reset: bool) -> None:
        refused_in = self._early.pop(stream, None)
        call = self._calls.pop(stream, None)
        if call is None:
            if reset and refused_in in (None, self.traffic.turn):
                self._went_at_once(self._hasty)
            return
        self.traffic.changed(-1)
        self._busy_ns = now_ns()
        fruitless = reset and call.fruitless
        call.closed()
        self._held.pop(call, None)
        if fruitless:
            self._went_at_once(self._hasty if call.hasty else self._fruitless)

    def _went_at_once(self, bucket: Bucket) -> None:
        if not bucket.take(now_ns()):
            self._throw_out(b"too many calls that were begun and cancelled at once")

    def pinged(self) -> None:
        self._strike()

    def ping_answered(self) -> None:
        self._pinged_ns = 0

    def settings_changed(self) -> None:
        self._strike()

    def over(self, code: int) -> None:
        self._link.close("protocol_error" if code else self._why or "left")

    # For calls.

    def answer(self, call: OpenCall, message: bytes) -> None:
        """The only message of a call, and its end."""
        if len(message) - wire.PREFIX_BYTES > self.traffic.limits.message_bytes:
            self.finish(call, *self._too_large(message))
            return
        self._moved = True
        try:
            self._http2.answer(call.stream, _ENCODED[call.accepts], message, _ENDING_OK)
        except Broken:
            return  # the stream is over, of which `closed` tells, or the connection, of which `lost` does
        self._link.flush()
        self._early_end(call.stream, call.ended)

    def send(self, call: OpenCall, message: bytes) -> None:
        """A message of a call that goes on, if it is not too large: then the call ends."""
        if len(message) - wire.PREFIX_BYTES > self.traffic.limits.message_bytes:
            call.refuse(*self._too_large(message))
            return
        self._moved = True
        try:
            if not call.begun:
                call.begun = True
                self._http2.begin(call.stream, _ENCODED[call.accepts])
            self._http2.send(call.stream, message)
        except Broken:
            return
        self._link.flush()

    def finish(self, call: OpenCall, code: Code, message: str, retry_ms: int = 0) -> None:
        """The end of a call."""
        ending = wire.ending(code, message, retry_ms)
        try:
            if call.begun:
                self._http2.finish(call.stream, ending)
            else:
                self._http2.refuse(call.stream, (*HEADERS, *ending))
        except Broken:
            return
        self._link.flush()
        self._early_end(call.stream, call.ended)

    def take(self, stream: int, count: int) -> None:
        """So many bytes were used as they came."""
        if count:
            self._http2.take(stream, count)

    def used(self, stream: int, count: int) -> None:
        """So many bytes were used that have waited."""
        self.unfinished -= count
        self.traffic.unfinished -= count
        self._http2.take(stream, count)
        self._link.flush()

    def put_aside(self, count: int) -> tuple[Code, str] | None:
        """A message of so many bytes is to be looked at elsewhere; why its call is turned away, if it is."""
        traffic, limits = self.traffic, self.traffic.limits
        if (
            self._aside + count > limits.unfinished_messages * limits.message_bytes
            or traffic.waiting_aside + count > limits.unfinished_messages_in_all * limits.message_bytes
        ):
            return Code.RESOURCE_EXHAUSTED, (
                f"{traffic.waiting_aside} bytes of large or compressed messages wait here, {self._aside} of them of this "
                "connection; send fewer at the same time"
            )
        self._aside += count
        traffic.waiting_aside += count
        return None

    def looked_at_aside(self, count: int) -> None:
        """A message of so many bytes waits no more."""
        self._aside -= count
        self.traffic.waiting_aside -= count

    def waiting(self, count: int) -> tuple[Code, str] | None:
        """So many bytes more of a message wait; why its call is turned away, if it is."""
        limits = self.traffic.limits
        self.unfinished += count
        self.traffic.unfinished += count
        if self.unfinished > min(limits.unfinished_messages * limits.message_bytes, http2.MOST_UNFINISHED):
            return Code.RESOURCE_EXHAUSTED, (
                f"{self.unfinished} bytes of messages that are not whole wait here; send fewer large messages at the same time"
            )
        self.traffic.bound()
        return None

    def expect(self, call: OpenCall, needed: int) -> tuple[Code, str] | None:
        """The client is to send a message that needs so many bytes; why its call is turned away, if it is.

        The library gives a window back when half of it has been used. So it must be twice as wide as a message.
        """
        length, most = needed - wire.PREFIX_BYTES, self.traffic.limits.message_bytes
        if length > most:
            return Code.RESOURCE_EXHAUSTED, (
                f"Received message larger than max ({length} vs. {most}); --max-message-bytes sets the limit"
            )
        if 2 * needed > call.window:
            call.window = 2 * needed
            self._http2.widen(call.stream, call.window)
            self._link.flush()
        return None

    def give_up_message(self) -> bool:
        """Turns away the call that holds most of a message, since all together hold too much; False where there is none."""
        call = max(self._calls.values(), key=lambda call: call.left, default=None)
        if call is None or not call.left:
            return False
        call.refuse(
            Code.RESOURCE_EXHAUSTED,
            f"{self.traffic.unfinished} bytes of unfinished messages wait here, most of them of this client; send fewer",
        )
        return True

    def give_up(self) -> None:
        """Ends the connection, since its client does not read what it is sent."""
        self._link.cut_off("not_reading")

    def unsent_of(self, call: OpenCall) -> int:
        """Bytes of its answers that the client has not taken."""
        return self._http2.unsent_of(call.stream)

    def hold(self, call: OpenCall) -> None:
        """The call goes on when something has been sent."""
        self._held[call] = None

    # Inside.

    def _too_large(self, message: bytes) -> tuple[Code, str]:
        length, most = len(message) - wire.PREFIX_BYTES, self.traffic.limits.message_bytes
        return Code.RESOURCE_EXHAUSTED, (
            f"Sent message larger than max ({length} vs. {most}): the answer is larger than --max-message-bytes allows"
        )

    def _early_end(self, stream: int, ended: bool) -> None:
        """A call is over; where its client still sends, it is told to stop when the answer has gone."""
        if not ended:
            self._early[stream] = self.traffic.turn

    def _end_early(self) -> None:
        for stream in list(self._early):
            if not self._http2.unsent_of(stream):
                del self._early[stream]
                self._http2.reset(stream, http2.NO_ERROR)
                self._link.flush()

    def _strike(self) -> None:
        """The client wants something that is none of its calls. It may once for all that has come or gone of them.

        Clients measure the way by a ping for what they receive: on one stream these may be thousands a second.
        """
        if self._moved:
            self._moved = False
        elif not self._unasked.take(now_ns()):
            self._throw_out(b"too_many_pings")

    def _throw_out(self, why: bytes) -> None:
        self._link.trouble = why.decode()
        self._http2.end(http2.ENHANCE_YOUR_CALM, why)
        raise Closed("flood")


def _over(since_ns: int, seconds: float) -> bool:
    """Whether a time has passed that is for ever when it is 0."""
    return 0 < seconds * 1e9 < since_ns
