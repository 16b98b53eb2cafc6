"""Nothing of a call is kept when it has been answered, or its client has gone: not even until somebody collects garbage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serving.edge.edges import NGHTTP2
from serving.protocol.call import Call
from serving.protocol.codes import Code
from tests.support.grpc_port import WAIT_SECONDS, channel, port, stream, unary
from tests.support.running import until


class Waiting:
    """A request in a queue: it leads to its call, and the call to it, as those of a model do."""

    def __init__(self, call: Call) -> None:
        self.call = call
        call.on_cancel(self.cancel)

    def cancel(self) -> None: ...


class Kept:
    """An `infer` that notes every request weakly, and answers it in this way."""

    def __init__(self, answer: Callable[[Call, bytes], None]) -> None:
        self._answer = answer
        self.requests: list[weakref.ref[Waiting]] = []

    def __call__(self, payload: bytes, call: Call) -> None:
        waiting = Waiting(call)
        self.requests.append(weakref.ref(waiting))
        self._answer(call, payload)

    def gone(self) -> bool:
        """Whether none of them is left."""
        return bool(self.requests) and not any(request() for request in self.requests)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Garbage is not collected: what goes goes by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def answered(call: Call, payload: bytes) -> None:
    call.reply(payload)


def failed(call: Call, payload: bytes) -> None:
    call.fail(Code.NOT_FOUND, "no")


def held(call: Call, payload: bytes) -> None: ...


@pytest.mark.parametrize("answer", [answered, failed])
@pytest.mark.parametrize("payload", [b"small", bytes(200_000)], ids=["small", "looked at aside"])
def test_of_a_call(answer: Any, payload: bytes) -> None:
    kept = Kept(answer)
    with port(NGHTTP2, kept) as server, channel(server) as client:
        for _ in range(3):
            unary(client).future(payload, timeout=WAIT_SECONDS).exception()
        until(kept.gone)


@pytest.mark.parametrize("answer", [answered, failed])
def test_of_a_stream(answer: Any) -> None:
    kept = Kept(answer)
    with port(NGHTTP2, kept) as server, channel(server) as client:
        assert len(list(stream(client, iter([b"one", bytes(200_000), b"three"])))) == 3
        until(kept.gone)


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
def test_of_a_client_that_goes(streamed: bool) -> None:
    kept = Kept(held)
    with port(NGHTTP2, kept) as server:
        client = channel(server)
        call: Any = stream(client, iter([b"one"])) if streamed else unary(client).future(b"one", timeout=WAIT_SECONDS)
        until(lambda: len(kept.requests) == 1)
        call.cancel()
        client.close()
        until(kept.gone)


def test_of_a_connection() -> None:
    with port(NGHTTP2) as server:
        client = channel(server)
        assert unary(client)(b"one", timeout=WAIT_SECONDS) == b"one"
        (connection,) = map(weakref.ref, server.traffic.connections)  # type: ignore[attr-defined]
        client.close()
        until(lambda: connection() is None)
