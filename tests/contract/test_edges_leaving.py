"""How every edge closes its port: what comes late is refused, what is in flight is waited for, nobody else holds it open."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest

from serving.protocol.codes import Code
from tests.support.grpc_port import EDGES, WAIT_SECONDS, Held, channel, echo, port, refusal, stream, unary

CODE = grpc.StatusCode

pytestmark = pytest.mark.parametrize("edge", EDGES)


class Leaving:
    """A server that is being stopped, while inferences are in flight until `answered`."""

    def __init__(self, grace_seconds: float) -> None:
        self.answered = threading.Event()
        self.refusing = threading.Event()
        self.closed = threading.Event()  # from now on the port takes nothing
        self.in_time: bool | None = None
        self._grace_seconds = grace_seconds
        self._asked = 0
        self._thread: threading.Thread | None = None

    def begin(self, server: object) -> None:
        def stop() -> None:
            self.in_time = server.stop(self._grace_seconds, self._busy, self.refusing.set)  # type: ignore[attr-defined]

        self._thread = threading.Thread(target=stop)
        self._thread.start()

    def wait(self) -> bool | None:
        """Whether nothing was cut off."""
        assert self._thread
        self._thread.join(WAIT_SECONDS)
        return self.in_time

    def _busy(self) -> bool:
        self._asked += 1
        if self._asked > 1:  # it is asked for the first time before the port closes
            self.closed.set()
        return not self.answered.is_set()


def test_a_port_that_closes_refuses_what_comes_and_waits_for_what_is_in_flight(edge: str) -> None:
    held, leaving = Held(), Leaving(grace_seconds=WAIT_SECONDS)
    with port(edge, held) as server, channel(server) as client, channel(server) as late:
        asked = unary(client).future(b"in flight", timeout=WAIT_SECONDS)
        _, call = held.next()
        leaving.begin(server)
        assert leaving.closed.wait(WAIT_SECONDS)
        assert leaving.refusing.is_set()
        code, _ = refusal(lambda: unary(late)(b"late", timeout=WAIT_SECONDS))
        assert code is CODE.UNAVAILABLE
        assert held.empty
        call.reply(b"in time")
        leaving.answered.set()
        assert asked.result() == b"in time"
        assert leaving.wait() is True


def test_what_is_still_in_flight_when_the_time_is_over_is_cut_off(edge: str) -> None:
    held, leaving = Held(), Leaving(grace_seconds=0.2)
    with port(edge, held) as server, channel(server) as client:
        asked = unary(client).future(b"in flight", timeout=WAIT_SECONDS)
        _, call = held.next()
        leaving.begin(server)
        assert leaving.wait() is False
        assert refusal(asked.result)[0] in (CODE.CANCELLED, CODE.UNAVAILABLE)
        call.fail(Code.UNAVAILABLE, "too late")


def test_what_nobody_waits_for_does_not_hold_the_port_open(edge: str) -> None:
    """A stream of inferences whose client says nothing, and a reflection stream."""
    silent, leaving = threading.Event(), Leaving(grace_seconds=WAIT_SECONDS)
    leaving.answered.set()

    def nothing() -> Iterator[bytes]:
        yield b"one"
        silent.wait()

    with port(edge, echo) as server, channel(server) as client:
        opened = stream(client, nothing())
        next(opened)
        reflect = client.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        mirrored = reflect((silent.wait() or b"" for _ in range(1)), timeout=WAIT_SECONDS)
        leaving.begin(server)
        assert leaving.wait() is True
        assert refusal(lambda: next(opened)) == (CODE.UNAVAILABLE, "Server exiting")
        assert refusal(lambda: next(mirrored))[0] in (CODE.CANCELLED, CODE.UNAVAILABLE)
        silent.set()
