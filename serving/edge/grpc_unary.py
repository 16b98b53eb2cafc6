"""Calls of one message and one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from serving.edge import grpc_wire as wire
from serving.edge.grpc_calls import Ending, OpenCall
from serving.protocol.codes import Code


class UnaryCall(OpenCall):
    """One message, one answer; see `serving.protocol.call.Call`."""

    __slots__ = ("_action", "_asked")
    on_stream = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._action: Callable[[], None] | None = None
        self._asked = False

    def data(self, data: bytes, end: bool) -> None:
        """See `OpenCall.data`."""
        # As it mostly comes: everything in one frame.
        if (
            end
            and self.inbox is None
            and not self.done
            and len(data) - 5 == int.from_bytes(data[1:5], "big") <= self.connection.traffic.small_bytes
        ):
            self.ended = self._asked = True
            self.connection.take(self.stream, len(data))
            self.ask(data[0], data[5:], self)
        else:
            super().data(data, end)

    def go_on(self) -> None:
        """See `OpenCall.go_on`."""
        if self._asked:
            return
        if not self.ended:
            self.want_the_rest()
            return
        message = self.next()
        if message is None or self.left:
            number = "less" if message is None else "more"
            self.refuse(Code.UNIMPLEMENTED, f"the method takes one message, whole; the call has ended with {number}")
            return
        self._asked = True
        self.ask(*message, self)

    @property
    def waits(self) -> bool:
        """See `OpenCall.waits`."""
        return not self._asked

    @property
    def unfinished(self) -> bool:
        """See `OpenCall.unfinished`; a call without a message is not whole either."""
        return not self._asked

    @property
    def answering(self) -> bool:
        """See `OpenCall.answering`."""
        return self._asked and not self.done and self.route.together

    def cancel(self) -> None:
        """See `OpenCall.cancel`."""
        action, self._action = self._action, None
        if action:
            action()

    # The border to whoever answers, from any thread.

    def reply(self, payload: bytes) -> None:
        self.pack(self._deliver, payload)

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        self.connection.traffic.post(self._fail, (code, message, retry_ms))

    def on_cancel(self, action: Callable[[], None]) -> None:
        self._action = action
        if self.gone:
            self._action = None
            action()

    @staticmethod
    def reply_all(answers: Sequence[tuple[UnaryCall, bytes]]) -> None:
        plain = []
        for call, payload in answers:
            if call.accepts:
                call.reply(payload)
            else:
                plain.append((call._deliver, wire.framed(payload)))
        answers[0][0].connection.traffic.post_all(plain)

    def unpacked(self, payload: bytes) -> None: ...

    # On the thread of the loop.

    def _deliver(self, message: bytes) -> None:
        self._action = None  # it leads back here, and would keep both until somebody collects garbage
        if not self.done:
            self.done = True
            self.connection.answer(self, message)

    def _fail(self, error: Ending) -> None:
        self._action = None
        self.end(*error)
