"""Calls of one message that are answered again and again: health watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serving.edge import grpc_wire as wire
from serving.edge.grpc_calls import OpenCall
from serving.protocol.codes import Code


class Watch(OpenCall):
    """One message, and an answer whenever there is something new, until the client or the server leaves.

    `Route.ask` is given the message and this; it answers by `tell`, and says by `on_cancel` what is done at the end.
    """

    __slots__ = ("_action", "_begun")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._action: Callable[[], None] | None = None
        self._begun = False

    def go_on(self) -> None:
        """See `OpenCall.go_on`."""
        message = None if self._begun else self.next()
        if message:
            self._begun = True
            self.ask(*message, self)
        elif self.ended and not self._begun:
            self.refuse(Code.UNIMPLEMENTED, "the method takes one message, whole; the call has ended without one")
        if self._begun and self.left:
            self.refuse(Code.UNIMPLEMENTED, "the method takes one message, and more has come")

    @property
    def waits(self) -> bool:
        """See `OpenCall.waits`."""
        return True

    def cancel(self) -> None:
        """See `OpenCall.cancel`."""
        action, self._action = self._action, None
        if action:
            action()

    def on_cancel(self, action: Callable[[], None]) -> None:
        """Calls `action` when the call is over, whatever has ended it."""
        self._action = action
        if self.done:  # by its deadline, while its message was unpacked
            action()

    def unpacked(self, payload: bytes) -> None: ...

    def tell(self, payload: bytes) -> None:
        """One more answer. From any thread."""
        self.connection.traffic.post(self._tell, wire.framed(payload))

    def fail(self, code: Code, message: str) -> None:
        """The end. From any thread."""
        self.connection.traffic.post(self._fail, (code, message))

    def _tell(self, message: bytes) -> None:
        if not self.done:
            self.connection.send(self, message)

    def _fail(self, error: tuple[Code, str]) -> None:
        if not self.done:
            self.end(*error)
            self.cancel()

    def leave(self) -> None:
        """The server leaves."""
        self._fail((Code.UNAVAILABLE, "Server exiting"))
