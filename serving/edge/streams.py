"""ModelStreamInfer without a transport: many requests on one stream, answered in the order in which they came.

A request that fails is answered inside the stream and the stream goes on, unless the client has asked for gRPC's own
errors (metadata `triton_grpc_error: true`).
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from serving.edge import stream_messages
from serving.protocol.call import Call
from serving.protocol.codes import Code
from serving.telemetry.timeline import now_ns

# Requests of one stream that are taken in before their answers are read: the rest stays with the client.
WINDOW = 64


_numbers = itertools.count(1)  # of all streams of the process


class Aborted(Exception):
    """The stream is to end with this code; `str(error)` is the message, and `retry_ms` as a `Call` is told it."""

    def __init__(self, code: Code, message: str, retry_ms: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_ms = retry_ms


class _StreamedCall:
    """One request of a stream, as `serving.protocol.call.Call` wants it; its answer is a message of the stream."""

    def __init__(self, payload: bytes, stream: Stream) -> None:
        self.received_ns = now_ns()
        self.deadline_ns = stream.deadline_ns
        self.caller = stream.caller
        self.on_stream = stream.number
        self.gone = False
        self.answer: Future[bytes] = Future()
        self._payload = payload
        self._stream = stream
        self._cancel: Callable[[], None] | None = None

    def reply(self, payload: bytes) -> None:
        self.answer.set_result(stream_messages.answered(payload))

    @staticmethod
    def reply_all(answers: Sequence[tuple[_StreamedCall, bytes]]) -> None:
        for call, payload in answers:
            call.reply(payload)

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        if self._stream.ends_on_error:
            self.answer.set_exception(Aborted(code, message, retry_ms))
            return
        self.answer.set_result(stream_messages.failed(self._payload, message))

    def on_cancel(self, action: Callable[[], None]) -> None:
        self._cancel = action
        if self._stream.closed:
            action()

    def client_left(self) -> None:
        """Nobody waits for the answer any more."""
        if self._cancel:
            self._cancel()


class Stream:
    """One open stream: what its requests share, and its answers in the order of the requests.

    One thread reads requests (`take`, `no_more`), another one sends (`answers`); `leave` and `client_left` come from any.
    """

    def __init__(self, deadline_ns: int | None = None, *, ends_on_error: bool = False, caller: str = "") -> None:
        self.deadline_ns = deadline_ns
        self.caller = caller
        self.number = next(_numbers)
        self.ends_on_error = ends_on_error
        self._calls: queue.SimpleQueue[_StreamedCall | Aborted | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(WINDOW)
        self._closed = threading.Event()
        self._unanswered: deque[_StreamedCall] = deque()  # the oldest first, no more than WINDOW

    def take(self, payload: bytes, infer: Callable[[bytes, Call], None]) -> bool:
        """Takes a request in as soon as there is room for its answer; False when the stream is closed."""
        self._room.acquire()
        if self._closed.is_set():
            return False
        call = _StreamedCall(payload, self)
        self._unanswered.append(call)
        self._calls.put(call)
        infer(payload, call)
        return True

    def no_more(self) -> None:
        """The client has sent its last request, or has left."""
        self._calls.put(None)

    def answers(self) -> Iterator[bytes]:
        """The messages of the stream, each waited for. Raises `Aborted` where the stream is to end instead."""
        while (call := self._calls.get()) is not None:
            if isinstance(call, Aborted):
                raise call
            yield call.answer.result()
            self._unanswered.popleft()
            del call  # an open stream keeps nothing of what it has answered
            self._room.release()  # the client has taken the answer, so there is room for one more request

    @property
    def closed(self) -> bool:
        """Whether the client or the server has left."""
        return self._closed.is_set()

    def client_left(self) -> None:
        """The client reads no more: every request that waits is cancelled."""
        self._closed.set()
        for call in list(self._unanswered):
            call.client_left()
        self._room.release()

    def leave(self) -> None:
        """The server leaves: the stream answers what it has taken in, then it ends."""
        self._closed.set()
        self._calls.put(Aborted(Code.UNAVAILABLE, "Server exiting"))


class OpenStreams:
    """All open streams of a server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Stream] = set()
        self._leaving = False

    def add(self, stream: Stream) -> None:
        """A stream has been opened; it ends at once if the server leaves."""
        with self._lock:
            self._open.add(stream)
            leaving = self._leaving
        if leaving:
            stream.leave()

    def discard(self, stream: Stream) -> None:
        """A stream has ended."""
        with self._lock:
            self._open.discard(stream)

    def __bool__(self) -> bool:
        with self._lock:
            return bool(self._open)

    def leave(self) -> None:
        """Ends every stream once what it has taken in is answered; a stream left open would hold the shutdown up."""
        with self._lock:
            self._leaving = True
            streams = list(self._open)
        for stream in streams:
            stream.leave()
