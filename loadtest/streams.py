"""The hot path over ModelStreamInfer: many requests on a few long streams.

An answer finds its request by the id, which is appended to the ready-made bytes as one more protobuf field instead of
serialising the request again (protobuf joins concatenated messages). gRPC's deadline belongs to a whole stream, so a
request that is never answered is noticed only when the run ends.
"""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Sequence

from grpc._cython import cygrpc

from loadtest.calls import CODE_NAMES, OK, SERVICE, Answer, Metadata, open_channel
from loadtest.endpoint import Endpoint
from loadtest.errors import LoadTestError
from protos import grpc_service_pb2 as pb

STREAM_ERROR = 100  # no gRPC code: the stream goes on, and an error message has answered one request
NAMES = {STREAM_ERROR: "STREAM_ERROR"}
_ID_FIELD = bytes([pb.ModelInferRequest.DESCRIPTOR.fields_by_name["id"].number << 3 | 2])


class StreamCalls:
    """Requests in turn over `streams` streams. A stream that breaks fails its requests and is opened anew.

    `fatal` is set if the server has no ModelStreamInfer, or answers what was never asked.
    """

    def __init__(self, endpoint: Endpoint, timeout_seconds: float, streams: int) -> None:
        self.fatal: LoadTestError | None = None
        self._channel = open_channel(endpoint, timeout_seconds)
        self._metadata = endpoint.metadata
        self._method = f"/{SERVICE}/ModelStreamInfer".encode()
        self._handle = self._channel.get_registered_call_handle(self._method)
        self._streams = [self._open() for _ in range(streams)]
        self._replaced: list[_Stream] = []
        self._turn = itertools.cycle(range(streams))

    def send(self, payload: bytes, started_ns: int) -> None:
        index = next(self._turn)
        while not self._streams[index].send(payload, started_ns):
            self._replaced = [stream for stream in (*self._replaced, self._streams[index]) if stream.due]
            self._streams[index] = self._open()

    def receive(self) -> Sequence[Answer] | None:
        event = self._channel.next_call_event()
        if event.tag is None:
            return None
        stream: _Stream = event.tag
        answers = stream.happened(event)
        self.fatal = self.fatal or stream.fatal
        return answers

    def wake(self) -> None:
        operations = (((cygrpc.ReceiveStatusOnClientOperation(0),), None),)
        self._channel.integrated_call(0, self._method, None, 0.0, None, None, operations, None, self._handle)

    def finish(self) -> None:
        streams = (*self._streams, *self._replaced)
        for stream in streams:
            stream.cancel()
        while any(stream.due for stream in streams):
            self.receive()

    def close(self) -> None:
        self._channel.close(cygrpc.StatusCode.cancelled, "the load test has ended")

    def _open(self) -> _Stream:
        return _Stream(self._channel, self._method, self._handle, self._metadata)


class _Stream:
    """One call of ModelStreamInfer. Its own lock, because one thread sends while another receives.

    `due` counts the events that the completion queue still owes; `fatal` is set when going on makes no sense.
    """

    def __init__(self, channel: cygrpc.Channel, method: bytes, handle: object, metadata: Metadata) -> None:
        self.fatal: LoadTestError | None = None
        self.due = 2
        self._broken = False
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._waiting: dict[str, int] = {}
        self._unsent: collections.deque[bytes] = collections.deque()
        self._sending = False
        start = (cygrpc.SendInitialMetadataOperation(metadata, 0), cygrpc.ReceiveInitialMetadataOperation(0))
        end = (cygrpc.ReceiveStatusOnClientOperation(0),)
        batches = ((start, self), (end, self))
        self._call = channel.integrated_call(0, method, None, None, None, None, batches, None, handle)
        self._operate(cygrpc.ReceiveMessageOperation(0))

    def send(self, payload: bytes, started_ns: int) -> bool:
        """Sends or queues, as the C core takes one message at a time; False if the stream has broken."""
        number = str(next(self._ids))
        message = payload + _ID_FIELD + bytes([len(number)]) + number.encode()
        with self._lock:
            if self._broken:
                return False
            self._waiting[number] = started_ns
            if self._sending:
                self._unsent.append(message)
            else:
                self._sending = self._operate(cygrpc.SendMessageOperation(message, 0))
        return True

    def cancel(self) -> None:
        """Ends the stream, if it has not ended."""
        with self._lock:
            if self.due:
                self._call.cancel(cygrpc.StatusCode.cancelled, "the load test has ended")

    def happened(self, event: cygrpc.BatchOperationEvent) -> Sequence[Answer]:
        """What this event of the completion queue means for the requests on this stream."""
        answers: list[Answer] = []
        with self._lock:
            self.due -= 1
            for operation in event.batch_operations:
                kind = operation.type()
                if kind == cygrpc.OperationType.send_message:
                    self._sending = bool(
                        event.success
                        and self._unsent
                        and self._operate(cygrpc.SendMessageOperation(self._unsent.popleft(), 0))
                    )
                elif kind == cygrpc.OperationType.receive_message and operation.message() is not None:
                    self._operate(cygrpc.ReceiveMessageOperation(0))
                    answers += self._answered(operation.message())
                elif kind == cygrpc.OperationType.receive_status_on_client:
                    answers += self._ended(operation.code(), operation.details())
        return answers

    def _operate(self, operation: cygrpc.Operation) -> bool:
        """Starts one operation; False if the call has ended already."""
        started = bool(self._call.operate((operation,), self))
        self.due += started
        return started

    def _answered(self, message: bytes) -> Sequence[Answer]:
        response = pb.ModelStreamInferResponse.FromString(message)
        final = response.infer_response.parameters.get("triton_final_response")
        if final is not None and not final.bool_param and not response.error_message:
            return ()
        number = response.infer_response.id or next(iter(self._waiting), "")
        started_ns = self._waiting.pop(number, None)
        if started_ns is None:
            self.fatal = LoadTestError(f"the server has answered a request of the id {number!r}, which was not asked")
            return ()
        if response.error_message:
            return (Answer(started_ns, STREAM_ERROR, response.error_message, None),)
        return (Answer(started_ns, OK, "", response.infer_response.SerializeToString()),)

    def _ended(self, code: int, details: str) -> Sequence[Answer]:
        self._broken = True
        lost, self._waiting = self._waiting, {}
        self._unsent.clear()
        if code == cygrpc.StatusCode.unimplemented:
            self.fatal = LoadTestError(
                f"the server does not have ModelStreamInfer ({CODE_NAMES[code]}: {details}); leave --streaming out"
            )
        why = details or "the server has closed the stream"
        return [Answer(started_ns, code or cygrpc.StatusCode.unknown, why, None) for started_ns in lost.values()]
