"""ModelStreamInfer over `grpc.server`: many requests on one stream, answered in the order in which they came.

A request that fails is answered inside the stream and the stream goes on, unless the client has asked for gRPC's own
errors (metadata `triton_grpc_error: true`). Nothing is parsed to mark an answer as final; in protobuf's wire format,
joining the bytes of two messages merges them, a map entry included.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import grpc
from google.protobuf.message import DecodeError

from protos import grpc_service_pb2 as pb
from serving.telemetry.timeline import now_ns

# Requests of one stream that are taken in before their answers are read: the rest stays with the client.
WINDOW = 64
MAX_DETAILS_BYTES = 1000  # of an error that ends a stream, which travels in its trailing metadata

_FINAL = pb.ModelInferResponse(
    parameters={"triton_final_response": pb.InferParameter(bool_param=True)}
).SerializeToString()
_INFER_RESPONSE_TAG = b"\x12"  # field 2 of ModelStreamInferResponse, length-delimited


class _Aborted(Exception):
    """The stream is to end with this code and message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message.encode(errors="replace")[:MAX_DETAILS_BYTES].decode(errors="ignore"))
        self.code = code


class _StreamedCall:
    """One request of a stream, as `serving.protocol.service.Call` wants it; its answer is a message of the stream."""

    def __init__(self, payload: bytes, stream: _Stream) -> None:
        self.received_ns = now_ns()
        self.deadline_ns = stream.deadline_ns
        self.answer: Future[bytes] = Future()
        self._payload = payload
        self._stream = stream

    def reply(self, payload: bytes) -> None:
        self.answer.set_result(_framed(payload + _FINAL))

    def fail(self, code: grpc.StatusCode, message: str) -> None:
        if self._stream.ends_on_error:
            self.answer.set_exception(_Aborted(code, message))
            return
        failed = pb.ModelInferResponse(id=_request_id(self._payload)).SerializeToString() + _FINAL
        self.answer.set_result(pb.ModelStreamInferResponse(error_message=message).SerializeToString() + _framed(failed))

    def on_cancel(self, action: Callable[[], None]) -> None:
        self._stream.on_cancel(action)


class _Stream:
    """One open stream: what its requests share, and its answers in the order of the requests."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        remaining = context.time_remaining()
        self.deadline_ns = None if remaining is None else now_ns() + int(remaining * 1e9)
        self.ends_on_error = ("triton_grpc_error", "true") in [tuple(pair) for pair in context.invocation_metadata()]
        self.calls: queue.SimpleQueue[_StreamedCall | _Aborted | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(WINDOW)
        self._closed = threading.Event()
        self._cancels: deque[Callable[[], None]] = deque(maxlen=WINDOW)  # no more are unanswered
        if not context.add_callback(self._client_left):
            self._client_left()

    def read(self, requests: Iterator[bytes], infer: Callable[[bytes, _StreamedCall], None]) -> None:
        """Takes requests in, as long as there is room for their answers. Runs on the stream's reader thread."""
        try:
            for payload in requests:
                self._room.acquire()
                if self._closed.is_set():
                    break
                call = _StreamedCall(payload, self)
                self.calls.put(call)
                infer(payload, call)
        except grpc.RpcError:
            pass  # how grpc's iterator says that the client has left
        finally:
            self.calls.put(None)

    def answered(self) -> None:
        """The client has taken one answer, so there is room for one more request."""
        self._room.release()

    def on_cancel(self, action: Callable[[], None]) -> None:
        """Runs `action` when the client leaves."""
        self._cancels.append(action)
        if self._closed.is_set():
            action()

    def leave(self) -> None:
        """The server leaves: what was taken in is answered, then the stream ends."""
        self._closed.set()
        self.calls.put(_Aborted(grpc.StatusCode.UNAVAILABLE, "Server exiting"))

    def _client_left(self) -> None:
        self._closed.set()
        for action in list(self._cancels):
            action()
        self._room.release()


class Streams:
    """All open streams of a server. `infer` is called for each request, in the order of its stream."""

    def __init__(self, infer: Callable[[bytes, _StreamedCall], None]) -> None:
        self._infer = infer
        self._lock = threading.Lock()
        self._open: set[_Stream] = set()
        self._leaving = False

    def handle(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """The behaviour of the bidirectional method, on a thread of its own for each stream.

        A reader thread takes requests in, at most `WINDOW` ahead of the answers that the client has read. This thread
        sends the answers, which blocks while the client does not read.
        """
        stream = _Stream(context)
        with self._lock:
            self._open.add(stream)
            leaving = self._leaving
        if leaving:
            stream.leave()
        threading.Thread(target=stream.read, args=(requests, self._infer), name="stream reader", daemon=True).start()
        try:
            while (call := stream.calls.get()) is not None:
                try:
                    yield _message(call)
                except _Aborted as error:
                    context.abort(error.code, str(error))
                stream.answered()
        finally:
            with self._lock:
                self._open.discard(stream)

    def open(self) -> bool:
        """Whether any stream is open."""
        with self._lock:
            return bool(self._open)

    def leave(self) -> None:
        """Ends every stream once what it has taken in is answered; a stream left open would hold the shutdown up."""
        with self._lock:
            self._leaving = True
            streams = list(self._open)
        for stream in streams:
            stream.leave()


def _message(call: _StreamedCall | _Aborted) -> bytes:
    """The next message of a stream, waited for. Raises `_Aborted` where the stream is to end instead."""
    if isinstance(call, _Aborted):
        raise call
    return call.answer.result()


def _framed(response: bytes) -> bytes:
    """The bytes of a ModelStreamInferResponse that holds this ModelInferResponse."""
    length, size = bytearray(), len(response)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return _INFER_RESPONSE_TAG + bytes(length) + response


def _request_id(payload: bytes) -> str:
    try:
        return pb.ModelInferRequest.FromString(payload).id
    except DecodeError:
        return ""
