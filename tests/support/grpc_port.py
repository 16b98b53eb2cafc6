"""The gRPC port in this process, with stubs behind it: for tests of the edges, which know no model."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from serving.edge.edges import GRPCIO, NGHTTP2, Chosen, Edge, open_edge
from serving.edge.health import HealthState
from serving.edge.tls import Certificates
from serving.edge.tokens import Tokens
from serving.edge.traffic import Ask, Limits
from serving.protocol.call import Call
from serving.protocol.methods import INFER, SERVICE, STREAM_INFER, Method

MAX_MESSAGE_BYTES = 1_000_000
LIMITS = Limits(MAX_MESSAGE_BYTES)
WAIT_SECONDS = 20  # for what must happen; no test passes by waiting
# Every edge, by its name: what the tests of tests/contract/test_edges*.py are asked of.
EDGES = (GRPCIO, NGHTTP2)


class Held:
    """An `infer` that keeps every call, in the order in which they come, until the test answers it."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[bytes, Call]] = queue.SimpleQueue()

    def __call__(self, payload: bytes, call: Call) -> None:
        self._calls.put((payload, call))

    def next(self) -> tuple[bytes, Call]:
        """The next call, waited for, and its bytes."""
        return self._calls.get(timeout=WAIT_SECONDS)

    @property
    def empty(self) -> bool:
        """Whether no call waits to be fetched."""
        return self._calls.empty()


def echo(payload: bytes, call: Call) -> None:
    """An `infer` that answers with what it was asked."""
    call.reply(payload)


@contextlib.contextmanager
def port(
    edge: str,
    infer: Ask = echo,
    methods: Sequence[Method] = (),
    health: HealthState | None = None,
    *,
    number: int = 0,
    certificates: Certificates | None = None,
    tokens: Tokens | None = None,
    turned_away: Callable[[str], None] = lambda code: None,
    limits: Limits = LIMITS,
) -> Iterator[Edge]:
    """An open port of one of EDGES on this machine; whatever is in flight at the end is cut off."""

    def infer_all(asked: Sequence[tuple[bytes, Call]]) -> None:
        for payload, call in asked:
            infer(payload, call)

    server = open_edge(
        Chosen(edge, ""),
        infer_all,
        methods,
        health or HealthState(),
        "127.0.0.1",
        number,
        limits=limits,
        certificates=certificates,
        tokens=tokens,
        turned_away=turned_away,
    )
    try:
        yield server
    finally:
        server.stop(0, lambda: False, lambda: None)


def channel(
    server: Edge, credentials: grpc.ChannelCredentials | None = None, more: Sequence[tuple[str, Any]] = ()
) -> grpc.Channel:
    """A connection that is shared with no other channel, with `more` options."""
    options = [("grpc.use_local_subchannel_pool", 1), *more]
    if credentials:
        return grpc.secure_channel(f"localhost:{server.port}", credentials, options)
    return grpc.insecure_channel(f"127.0.0.1:{server.port}", options)


def unary(connected: grpc.Channel, name: str = INFER) -> Any:
    """A unary method of the service, bytes in and bytes out."""
    return connected.unary_unary(f"/{SERVICE}/{name}")


def stream(connected: grpc.Channel, requests: Iterator[bytes], **more: Any) -> Any:
    """An open stream of inferences."""
    return connected.stream_stream(f"/{SERVICE}/{STREAM_INFER}")(requests, **{"timeout": WAIT_SECONDS, **more})


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The code and the details of a call that must fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"it was answered: {answer!r}")
