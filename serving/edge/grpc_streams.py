"""ModelStreamInfer over the public `grpc.server`: two threads for each open stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import grpc

from serving.edge.deadline import deadline_ns
from serving.edge.grpc_status import abort
from serving.edge.streams import Aborted, OpenStreams, Stream
from serving.protocol.call import Call
from serving.telemetry.timeline import now_ns

Infer = Callable[[bytes, Call], None]


class StreamHandler:
    """The behaviour of the bidirectional method. `infer` is called for each request, in the order of its stream."""

    def __init__(self, infer: Infer, streams: OpenStreams, caller_of: Callable[[grpc.ServicerContext], str]) -> None:
        self._infer = infer
        self._caller_of = caller_of
        self._streams = streams

    def __call__(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """A reader thread takes requests in; this thread sends the answers, which blocks while the client does not read."""
        metadata = [tuple(pair) for pair in context.invocation_metadata()]
        ends_on_error = ("triton_grpc_error", "true") in metadata
        stream = Stream(deadline_ns(context, now_ns()), ends_on_error=ends_on_error, caller=self._caller_of(context))
        if not context.add_callback(stream.client_left):
            stream.client_left()
        self._streams.add(stream)
        reader = threading.Thread(target=_read, args=(requests, stream, self._infer), name="stream reader", daemon=True)
        reader.start()
        try:
            yield from stream.answers()
        except Aborted as error:
            abort(context, error.code, str(error), error.retry_ms)
        finally:
            self._streams.discard(stream)


def _read(requests: Iterator[bytes], stream: Stream, infer: Infer) -> None:
    try:
        for payload in requests:
            if not stream.take(payload, infer):
                break
    except grpc.RpcError:
        pass  # how grpc's iterator says that the client has left
    finally:
        stream.no_more()
