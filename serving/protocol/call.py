"""The border between an edge and the protocol: one call, as whoever answers it sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from serving.protocol.codes import Code


class Call(Protocol):
    """One call. `reply` or `fail` is called exactly once, from any thread.

    Times are nanoseconds of `timeline.now_ns`. `on_cancel` runs `action` when the client has gone, on any thread, at once
    if it has gone already.
    """

    received_ns: int
    deadline_ns: int | None

    def reply(self, payload: bytes) -> None: ...

    def fail(self, code: Code, message: str) -> None: ...

    def on_cancel(self, action: Callable[[], None]) -> None: ...
