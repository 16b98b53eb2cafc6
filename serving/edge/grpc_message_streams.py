"""Bidirectional calls: many messages on one stream, answered in the order in which they came."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from serving.edge import grpc_wire as wire
from serving.edge import stream_messages
from serving.edge.grpc_calls import Ending, OpenCall
from serving.protocol.codes import Code
from serving.telemetry.timeline import now_ns

WINDOW = 64  # messages of one stream that are taken in before their answers are there: the rest stays with the client
UNSENT_BYTES = 256 * 1024  # of the answers of one stream, beyond which nothing more is taken in


_numbers = itertools.count(1)  # of all streams of the process


class Asked:
    """One message of a stream; see `serving.protocol.call.Call`. Answers go out in the order of the messages."""

    __slots__ = ("_action", "_payload", "answer", "deadline_ns", "error", "gone", "received_ns", "stream")

    def __init__(self, stream: OrderedStream, payload: bytes) -> None:
        self.received_ns = now_ns()
        self.deadline_ns = stream.deadline_ns
        self.stream = stream
        self.answer: bytes | None = None
        self.error: Ending | None = None  # with which the stream ends
        self.gone = False
        self._payload = payload
        self._action: Callable[[], None] | None = None

    @property
    def caller(self) -> str:
        return self.stream.caller

    @property
    def on_stream(self) -> int:
        return self.stream.number

    def reply(self, payload: bytes) -> None:
        self.stream.pack(self._answered, payload)

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        self.stream.connection.traffic.post(self._failed, (code, message, retry_ms))

    def on_cancel(self, action: Callable[[], None]) -> None:
        self._action = action
        if self.gone:
            self._action = None
            action()

    @staticmethod
    def reply_all(answers: Sequence[tuple[Asked, bytes]]) -> None:
        for call, payload in answers:
            call.reply(payload)

    def unpacked(self, payload: bytes) -> None:
        """What the message says, which came in parts or compressed."""
        self._payload = payload

    # On the thread of the loop.

    def cancel(self) -> None:
        """The stream is no more."""
        self.gone = True
        action, self._action = self._action, None
        if action:
            action()

    def refuse(self, code: Code, message: str) -> None:
        """The stream is to end with this, when what was asked before it has been answered."""
        self.stream.connection.traffic.refused(code.name)
        self._failed((code, message))

    def _answered(self, message: bytes) -> None:
        self._forget()
        self.answer = message
        self.stream.send()

    def _failed(self, error: Ending) -> None:
        self._forget()
        self.error = error
        self.stream.send()

    def _forget(self) -> None:
        """What leads back here would keep all of it until somebody collects garbage."""
        self._action, self._payload = None, b""


class AskedInference(Asked):
    """A request of ModelStreamInfer: an error is answered inside the stream, unless the client wants gRPC's own errors."""

    __slots__ = ()

    def reply(self, payload: bytes) -> None:
        super().reply(stream_messages.answered(payload))

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        # A deadline is the stream's own, which ends with it: once.
        late = code is Code.DEADLINE_EXCEEDED and self.deadline_ns is not None
        if late or self.stream.ends_on_error:
            super().fail(code, message, retry_ms)
        else:
            super().reply(stream_messages.failed(self._payload, message))

    @staticmethod
    def reply_all(answers: Sequence[tuple[Asked, bytes]]) -> None:
        plain = []
        for call, payload in answers:
            if call.stream.accepts:
                call.reply(payload)
            else:
                plain.append((call._answered, wire.framed(stream_messages.answered(payload))))
        answers[0][0].stream.connection.traffic.post_all(plain)


class OrderedStream(OpenCall):
    """Many messages, as many answers, in their order."""

    __slots__ = ("_aside", "_leaving", "_unanswered", "ends_on_error", "number")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ends_on_error = False
        self.number = next(_numbers)
        self._aside = False  # whether a message is looked at elsewhere; those behind it wait
        self._leaving = False
        self._unanswered: collections.deque[Asked] = collections.deque()

    @property
    def answering(self) -> bool:
        """See `OpenCall.answering`."""
        return not self.done and self.route.together and bool(self._unanswered)

    def asked(self, payload: bytes) -> Asked:
        """The call of one message."""
        return Asked(self, payload)

    def go_on(self) -> None:
        """See `OpenCall.go_on`."""
        while not (self.done or self._aside or self._leaving) and len(self._unanswered) < WINDOW:
            if self.connection.unsent_of(self) > UNSENT_BYTES:
                self.connection.hold(self)
                return
            message = self.next()
            if message is None:
                break
            asked = self.asked(message[1] if isinstance(message[1], bytes) else b"")
            self._unanswered.append(asked)
            self._aside = not self.ask(*message, asked)
        self._end_if_over()

    def asked_aside(self) -> None:
        """See `OpenCall.asked_aside`."""
        self._aside = False
        self.go_on()

    def send(self) -> None:
        """Sends the answers that are there, up to the first that is not."""
        if self.done:
            return
        while self._unanswered:
            first = self._unanswered[0]
            if first.error is not None:
                self.end(*first.error)
                self.cancel()
                return
            if first.answer is None:
                break
            self._unanswered.popleft()  # before it is sent: one that is too large ends the stream
            self.connection.send(self, first.answer)
        self.go_on()

    def leave(self) -> None:
        """The server leaves: what was taken in is answered, then the stream ends."""
        self._leaving = True
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self.done or self._unanswered or self._aside:
            return
        if self._leaving:
            self.end(Code.UNAVAILABLE, "Server exiting")
        elif self.ended and self.left:
            self.refuse(Code.INTERNAL, f"the stream has ended within a message; {self.left} bytes of it are there")
        elif self.ended:
            self.end(Code.OK, "")

    @property
    def waits(self) -> bool:
        """See `OpenCall.waits`."""
        return True

    @property
    def unfinished(self) -> bool:
        """See `OpenCall.unfinished`; whole messages may wait until others are answered."""
        return self.inbox is not None and self.inbox.held > 0 and not self.inbox.whole

    def cancel(self) -> None:
        """See `OpenCall.cancel`."""
        for asked in self._unanswered:
            asked.cancel()
        self._unanswered.clear()


class InferenceStream(OrderedStream):
    """ModelStreamInfer."""

    __slots__ = ()

    def metadata(self, fields: Mapping[bytes, bytes]) -> None:
        """See `OpenCall.metadata`."""
        self.ends_on_error = fields.get(b"triton_grpc_error") == b"true"

    def asked(self, payload: bytes) -> Asked:
        """See `OrderedStream.asked`."""
        return AskedInference(self, payload)
