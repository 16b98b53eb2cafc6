"""The hot path, unary: requests out and answers in through grpcio's completion queue, raw bytes both ways.

The public APIs cost the client more CPU than this for each request (`client.cpu_seconds_per_request` in the report shows
what it costs here), and a client that is busy measures itself. So this one file drives the C core as `grpc`'s own
synchronous client does, through `grpc._cython.cygrpc`, which promises nothing between versions: grpcio is pinned to a
range in which it holds. An answer is read from the socket only while some thread is in `receive`, so one always has to
be.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import grpc
from grpc._cython import cygrpc

from loadtest.endpoint import Endpoint
from loadtest.errors import LoadTestError

Metadata = Sequence[tuple[str, str]]

SERVICE = "inference.GRPCInferenceService"
OK = 0
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

# No two channels share a connection, and messages may have any size.
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
_WAKE = -1  # the tag of a call whose only purpose is to end a `receive`


class Answer(NamedTuple):
    """One request is over. `started_ns` is what `send` was given; `code` is gRPC's number, `details` says why."""

    started_ns: int
    code: int
    details: str
    payload: bytes | None


class Calls(Protocol):
    """A connection that carries requests. One thread at a time calls `send`; a single one calls `receive` and `finish`.

    `fatal` is set when going on makes no sense.
    """

    fatal: LoadTestError | None

    def send(self, payload: bytes, started_ns: int) -> None:
        """Raises `ValueError` once `close` was called."""

    def receive(self) -> Sequence[Answer] | None:
        """Waits for the next event. Returns the answers that it completes, possibly none; None for a `wake`."""

    def wake(self) -> None:
        """Makes `receive` return None, once."""

    def finish(self) -> None:
        """After the last answer: ends what is still open."""

    def close(self) -> None:
        """Breaks off what is in flight; blocks until the receiving thread has received the end of every call."""


def open_channel(endpoint: Endpoint, timeout_seconds: float) -> cygrpc.Channel:
    """A connection that is up. Raises `LoadTestError` if the server does not answer ServerLive in time."""
    credentials = endpoint.credentials._credentials if endpoint.credentials else None
    channel = cygrpc.Channel(endpoint.url.encode(), CHANNEL_OPTIONS, credentials)
    method = f"/{SERVICE}/ServerLive".encode()
    channel.integrated_call(
        0,
        method,
        None,
        time.time() + timeout_seconds,
        None,
        None,
        ((_unary_operations(b"", endpoint.metadata), 0),),
        None,
    )
    status = _status(channel.next_call_event())
    if status.code() != OK:
        raise LoadTestError(
            f"no server is live at {endpoint.url}: {CODE_NAMES[status.code()]}: {status.details()}; "
            "is it running, and is that its gRPC port?"
        )
    return channel


class UnaryCalls:
    """ModelInfer, one call for each request; `timeout_seconds` is every call's deadline."""

    def __init__(self, endpoint: Endpoint, timeout_seconds: float) -> None:
        self.fatal: LoadTestError | None = None
        self._channel = open_channel(endpoint, timeout_seconds)
        self._metadata = endpoint.metadata
        self._timeout_seconds = timeout_seconds
        self._method = f"/{SERVICE}/ModelInfer".encode()
        self._handle = self._channel.get_registered_call_handle(self._method)

    def send(self, payload: bytes, started_ns: int) -> None:
        self._call(payload, started_ns, time.time() + self._timeout_seconds)

    def receive(self) -> Sequence[Answer] | None:
        event = self._channel.next_call_event()
        if event.tag == _WAKE:
            return None
        status = _status(event)
        message = next(op for op in event.batch_operations if op.type() == cygrpc.OperationType.receive_message)
        return (Answer(event.tag, status.code(), status.details(), message.message()),)

    def wake(self) -> None:
        self._call(b"", _WAKE, 0.0)  # its deadline has passed: it never leaves this process

    def finish(self) -> None:
        """Nothing: every call has ended with its answer."""

    def close(self) -> None:
        self._channel.close(cygrpc.StatusCode.cancelled, "the load test has ended")

    def _call(self, payload: bytes, tag: int, deadline: float) -> None:
        operations = ((_unary_operations(payload, self._metadata), tag),)
        self._channel.integrated_call(0, self._method, None, deadline, None, None, operations, None, self._handle)


def _unary_operations(payload: bytes, metadata: Metadata) -> tuple[object, ...]:
    return (
        cygrpc.SendInitialMetadataOperation(metadata, 0),
        cygrpc.SendMessageOperation(payload, 0),
        cygrpc.SendCloseFromClientOperation(0),
        cygrpc.ReceiveInitialMetadataOperation(0),
        cygrpc.ReceiveMessageOperation(0),
        cygrpc.ReceiveStatusOnClientOperation(0),
    )


def _status(event: cygrpc.BatchOperationEvent) -> cygrpc.ReceiveStatusOnClientOperation:
    return next(op for op in event.batch_operations if op.type() == cygrpc.OperationType.receive_status_on_client)
