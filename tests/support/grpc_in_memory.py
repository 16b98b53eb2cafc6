"""gRPC on one connection without sockets and threads: turns are taken when the test says so, and whatever is asked is kept."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from ngh2.events import DataReceived, GoAwayReceived, PingReceived, ResponseReceived, StreamReset, TrailersReceived

from serving.edge import grpc_wire as wire
from serving.edge.grpc_connection import GrpcConnection
from serving.edge.grpc_message_streams import InferenceStream, OrderedStream
from serving.edge.grpc_unary import UnaryCall
from serving.edge.grpc_watch import Watch
from serving.edge.tokens import Tokens
from serving.edge.traffic import Limits, Route, Traffic
from serving.protocol.call import Call
from serving.protocol.codes import Code
from serving.telemetry.timeline import now_ns
from tests.support.http2_client import Http2Client, headers

INFER, STREAM, LOOK, WATCH, ECHO = b"/infer", b"/stream", b"/look", b"/watch", b"/echo"
MESSAGE_BYTES = 1_000_000
SECOND = 10**9


class Later(Executor):
    """Does what it was given when the test says so."""

    def __init__(self) -> None:
        self.given: collections.deque[Callable[[], object]] = collections.deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given.append(lambda: fn(*args, **kwargs))
        return Future()

    def work(self) -> None:
        """Everything that it was given."""
        while self.given:
            self.given.popleft()()


class Answer:
    """What a client has got on one stream so far."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.data = b""
        self.trailers: list[dict[bytes, bytes]] = []
        self.reset: int | None = None

    @property
    def messages(self) -> list[bytes]:
        """The messages that are whole, unpacked."""
        inbox, messages = wire.Inbox(), []
        inbox.add(self.data)
        while message := inbox.next():
            flag, payload = message
            packed = self.headers.get(b"grpc-encoding", b"")
            messages.append(wire.decompress(packed, payload, MESSAGE_BYTES) if flag else payload)
        return messages

    @property
    def ending(self) -> tuple[Code, str] | None:
        """How the call has ended, which is told once; None while it goes on."""
        assert len(self.trailers) <= 1, self.trailers
        if not self.trailers:
            return None
        (trailers,) = self.trailers
        return Code(int(trailers[b"grpc-status"])), trailers.get(b"grpc-message", b"").decode()


class InMemory:
    """A connection, its client and what is behind it. It is the link, and whoever is asked.

    `asked` has the inferences that were handed up; `told` whatever else happened, in order.
    """

    def __init__(self, *, limits: Limits | None = None, tokens: Tokens | None = None, patient: bool = False) -> None:
        self.asked: list[tuple[bytes, Any]] = []
        self.bursts: list[int] = []
        self.looked: list[tuple[bytes, Any]] = []
        self.watched: list[tuple[bytes, Watch]] = []
        self.refused: list[str] = []
        self.closed: list[str] = []
        self.caller = ""
        self._dirty = True
        self.went_away: list[GoAwayReceived] = []
        self.pings = 0
        self.answers: dict[int, Answer] = collections.defaultdict(Answer)
        self.aside, self.control = Later(), Later()
        self._posted: collections.deque[tuple[Callable[[Any], None], Any]] = collections.deque()
        self.opened_ns = now_ns()
        routes: Mapping[bytes, Route] = {
            INFER: Route(UnaryCall, self._infer, together=True),
            STREAM: Route(InferenceStream, self._infer, together=True),
            LOOK: Route(UnaryCall, lambda payload, call: self.looked.append((payload, call)), self.control),
            WATCH: Route(Watch, lambda payload, watch: self.watched.append((payload, watch))),
            ECHO: Route(OrderedStream, lambda payload, call: call.reply(payload), self.control),
        }
        self.traffic = Traffic(
            routes, self._infer_all, limits or Limits(MESSAGE_BYTES), tokens, self.aside, self.refused.append
        )
        self.traffic.post = lambda action, argument: self._posted.append((action, argument))
        self.traffic.post_all = self._posted.extend
        self.connection = GrpcConnection(self, self.traffic)  # type: ignore[arg-type]
        self.client = Http2Client(patient=patient)
        self.turn()

    def _infer_all(self, burst: Sequence[tuple[bytes, Call]]) -> None:
        self.bursts.append(len(burst))
        self.asked += [each for each in burst if not each[1].gone]  # as who answers does

    def _infer(self, payload: bytes, call: Call) -> None:
        self._infer_all([(payload, call)])

    def flush(self) -> None:
        """See `Link.flush`."""
        self._dirty = True

    def close(self, reason: str) -> None:
        """See `Link.close`."""
        self.closed.append(reason)

    # As a client.

    def ask(self, path: bytes, *messages: bytes, end: bool = True, packed: bytes = b"", **fields: bytes) -> int:
        """Opens a call with these messages; `packed` names the encoding that they have."""
        fields = {"grpc_encoding": packed, **fields} if packed else fields
        stream = self.client.connection.send_request(headers(path, **fields))
        framed = [
            wire.framed(wire.compress(packed, each), compressed=True) if packed else wire.framed(each)
            for each in messages
        ]
        self.send(stream, b"".join(framed), end=end)
        return stream

    def send(self, stream: int, data: bytes = b"", *, end: bool = False) -> None:
        """More on a stream."""
        if data or end:
            self.client.connection.send_data(stream, data, end_stream=end)

    def reset(self, stream: int) -> None:
        """The client cancels."""
        self.client.connection.reset_stream(stream, 8)

    def turn(self) -> None:
        """What has come is taken, what is asked handed up, what was posted done, and what there is sent; until all is quiet."""
        while True:
            said = self.client.said()
            if said:
                self.connection.receive(said)
            self.traffic.hand_up()
            posted = len(self._posted)
            for _ in range(posted):
                action, argument = self._posted.popleft()
                action(argument)
            self._dirty = False
            sent = self.connection.output()
            if sent:
                self._heard(self.client.hear(sent))
            else:
                self.connection.sent_all()
                self.traffic.hand_up()
                if not (said or posted or self._dirty or self.client.connection.want_write):
                    return

    def _heard(self, events: Sequence[Any]) -> None:
        for event in events:
            if isinstance(event, ResponseReceived):
                fields = dict(event.headers)
                self.answers[event.stream_id].headers = fields
                if event.end_stream and b"grpc-status" in fields:
                    self.answers[event.stream_id].trailers.append(fields)
            elif isinstance(event, DataReceived):
                self.answers[event.stream_id].data += event.data
            elif isinstance(event, TrailersReceived):
                self.answers[event.stream_id].trailers.append(dict(event.headers))
            elif isinstance(event, StreamReset):
                self.answers[event.stream_id].reset = event.error_code
            elif isinstance(event, GoAwayReceived):
                self.went_away.append(event)
            elif isinstance(event, PingReceived):
                self.pings += 1

    def ended(self, stream: int) -> tuple[Code, str] | None:
        """How a call has ended."""
        return self.answers[stream].ending

    def after(self, seconds: float) -> None:
        """The tick of the loop so many seconds from now."""
        self.connection.tick(now_ns() + int(seconds * SECOND))
        self.turn()

    @property
    def open(self) -> int:
        """Calls that are open."""
        return self.traffic.calls

    def nothing_left(self) -> bool:
        """Whether nothing of any call is counted any more."""
        return (self.traffic.calls, self.traffic.unfinished, self.traffic.unsent) == (0, 0, 0)
