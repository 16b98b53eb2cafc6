"""What all connections of an edge share: where calls go, what they may take, and how much they take now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

from serving.edge.links import Counts
from serving.edge.tokens import Tokens
from serving.protocol.call import Call

LOADERS = 4  # loads and unloads at the same time, on threads of their own; more wait

Ask = Callable[[bytes, Call], None]  # answers a message through its call, and never raises
AskAll = Callable[[Sequence[tuple[bytes, Call]]], None]
Post = Callable[[Callable[[Any], None], Any], None]
PostAll = Callable[[Sequence[tuple[Callable[[Any], None], Any]]], None]

LARGE_BYTES = 64 * 1024  # a message beyond this is not looked at on the thread of the loop


class Limits(NamedTuple):
    """What one connection, and all of them, may take: bytes, calls, seconds (0 is for ever)."""

    message_bytes: int
    metadata_bytes: int = 16 * 1024
    unfinished_messages: int = 2  # bytes of messages that are not whole, in largest messages, of one connection
    unfinished_messages_in_all: int = 8
    unsent_answers: int = (
        2  # bytes that a client has not taken, in largest messages, after which it may ask nothing more
    )
    unsent_answers_in_all: int = 8
    calls: int = 32 * 1024  # open at the same time, of all connections
    message_seconds: float = 60.0  # without a byte of a message that is not whole
    handshake_seconds: float = 10.0  # for TLS, and until it is seen who speaks
    stalled_seconds: float = 60.0  # for a client that takes nothing of what it is sent
    keepalive_seconds: float = 120.0  # of silence, after which a client is asked whether it is there
    keepalive_timeout_seconds: float = 20.0
    idle_seconds: float = 0.0
    age_seconds: float = 0.0
    age_grace_seconds: float = 0.0


class Route(NamedTuple):
    """A method: what answers its messages, and on which threads.

    Where `together`, what has come in one turn is answered in one call of `Traffic.infer_all`; without `on`, on the thread of the
    loop, where it may take no more than some microseconds. `open` makes its calls, `always` though all that may be open are.
    """

    open: Callable[..., Any]
    ask: Callable[[bytes, Any], None]
    on: Executor | None = None
    together: bool = False
    always: bool = False


class Taker(Protocol):
    """A connection, by what it takes."""

    unfinished: int
    unsent: int

    def give_up_message(self) -> bool: ...

    def give_up(self) -> None: ...


class Traffic:
    """Written by the thread of the loop alone.

    `post` and `post_all` have something called on that thread, from any. `aside` runs what takes longer than the loop may wait.
    `refused` counts a call that was turned away, by code.
    """

    def __init__(
        self,
        routes: Mapping[bytes, Route],
        infer_all: AskAll,
        limits: Limits,
        tokens: Tokens | None,
        aside: Executor,
        refused: Callable[[str], None],
    ) -> None:
        self.routes = routes
        self.limits = limits
        self.tokens = tokens
        self.aside = aside
        self.refused = refused
        self.counts = Counts()
        self.post: Post
        self.post_all: PostAll
        self.small_bytes = min(LARGE_BYTES, limits.message_bytes)
        self.turn = 0
        self.connections: dict[Taker, None] = {}
        self.calls = 0
        self.unfinished = 0  # bytes of messages that are not whole
        self.waiting_aside = 0  # bytes of messages that wait to be looked at
        self.unsent = 0  # bytes of answers that were not sent at once
        self.burst: list[tuple[bytes, Call]] = []  # what is asked in this turn
        self._infer_all = infer_all

    def changed(self, calls: int) -> None:
        """So many calls more, or fewer, are open."""
        self.calls += calls
        self.counts.calls = self.calls

    def bound(self) -> None:
        """Where all together take too much, whoever takes most gives something up: others have no part in it."""
        limits = self.limits
        while self.unfinished > limits.unfinished_messages_in_all * limits.message_bytes:
            if not max(self.connections, key=lambda taker: taker.unfinished).give_up_message():
                break
        if self.unsent > limits.unsent_answers_in_all * limits.message_bytes:
            max(self.connections, key=lambda taker: taker.unsent).give_up()

    def hand_up(self) -> None:
        """Has everything answered that was asked in this turn."""
        self.turn += 1
        if self.burst:
            burst, self.burst = self.burst, []
            self._infer_all(burst)
