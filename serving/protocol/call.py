"""The border between an edge and the protocol: one call, as whoever answers it sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from serving.protocol.codes import Code


class Call(Protocol):
    """One call. It is answered exactly once, by `reply`, `reply_all` or `fail`, from any thread; none of them raises.

    `reply_all` answers many calls of this class at once, so that an edge may hand them over together. Times are
    nanoseconds of `timeline.now_ns`. `on_cancel` runs `action` when the client has gone, on any thread, at once if it has
    gone already; then `gone` is true, and nothing is computed. `on_stream` is the number of the stream that it is a message
    of, 0 of a call by itself; `caller` is whoever calls, where callers are told apart, else empty. `retry_ms` tells the client
    after how many milliseconds it may ask again; 0 tells it nothing.
    """

    received_ns: int
    deadline_ns: int | None
    caller: str
    on_stream: int
    gone: bool

    def reply(self, payload: bytes) -> None: ...

    @staticmethod
    def reply_all(answers: Sequence[tuple[Any, bytes]]) -> None: ...

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None: ...

    def on_cancel(self, action: Callable[[], None]) -> None: ...


def reply_all(answers: Sequence[tuple[Call, bytes]]) -> None:
    """Answers many calls, those of one class at once, in the order given."""
    kinds = dict.fromkeys([type(call) for call, _ in answers])
    for kind in kinds:
        kind.reply_all(answers if len(kinds) == 1 else [each for each in answers if type(each[0]) is kind])
