"""The gRPC port on nghttp2: one thread for all connections, whatever takes longer on others."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from serving.edge import http2
from serving.edge.grpc_connection import GrpcConnection
from serving.edge.grpc_message_streams import InferenceStream, OrderedStream
from serving.edge.grpc_reflection import SERVICES as REFLECTION_SERVICES
from serving.edge.grpc_reflection import Reflection
from serving.edge.grpc_unary import UnaryCall
from serving.edge.grpc_watch import Watch
from serving.edge.health import HealthState
from serving.edge.links import Counts, Link, Speaker, Timeouts
from serving.edge.plain_http import PlainHttp
from serving.edge.sockets import Loop
from serving.edge.tls import Certificates
from serving.edge.tokens import Tokens
from serving.edge.traffic import LOADERS, AskAll, Limits, Route, Traffic
from serving.protocol.call import Call
from serving.protocol.codes import Code
from serving.protocol.methods import INFER, SERVICE, STREAM_INFER, Kind, Method, answered
from serving.telemetry.timeline import now_ns

CONTROL_THREADS = 4
ASIDE_THREADS = 2  # for messages that are large or compressed
CONNECTIONS = 16 * 1024
SPARE_DESCRIPTORS = 256
ALWAYS = ("ServerLive", "ServerReady")  # answered though all calls that may be open are, as health is
SETTLE_SECONDS = 0.1  # in which what was sent before the end was told of is read, at full load as well
FLUSH_SECONDS = 0.5  # what clients may take to read the last answers
LOOK_SECONDS = 0.01  # how often it is looked whether everything is answered, at the end
STUCK_SECONDS = 5  # what a turn of the loop never takes
T = TypeVar("T")
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Nghttp2Server:
    """The gRPC port; see `serving.edge.grpc_server.GrpcServer`, which says what the arguments are."""

    def __init__(
        self,
        infer_all: AskAll,
        methods: Sequence[Method],
        health: HealthState,
        host: str,
        port: int,
        *,
        limits: Limits,
        certificates: Certificates | None,
        tokens: Tokens | None,
        turned_away: Callable[[str], None],
    ) -> None:
        self._health = health
        self._pools = {
            name: ThreadPoolExecutor(threads, thread_name_prefix=name)
            for name, threads in (("control", CONTROL_THREADS), ("loader", LOADERS), ("aside", ASIDE_THREADS))
        }
        routes = self._routes(infer_all, methods)
        self._traffic = Traffic(routes, infer_all, limits, tokens, self._pools["aside"], turned_away)
        self._loop = Loop(
            host,
            port,
            self._speak,
            self._traffic.hand_up,
            encryption=certificates,
            most=_most_connections(),
            timeouts=Timeouts(limits.handshake_seconds, limits.stalled_seconds),
        )
        self._traffic.post, self._traffic.post_all = self._loop.post, self._loop.post_all
        self._traffic.counts = self._loop.counts
        self.port = self._loop.port
        self._loop.start()

    @property
    def counts(self) -> Counts:
        """What is told of the connections."""
        return self._loop.counts

    @property
    def traffic(self) -> Traffic:
        """What its clients take now."""
        return self._traffic

    def _routes(self, infer_all: AskAll, methods: Sequence[Method]) -> dict[bytes, Route]:
        def infer(payload: bytes, call: Call) -> None:
            infer_all([(payload, call)])

        pools = {Kind.LOOK: self._pools["control"], Kind.LOAD: self._pools["loader"]}
        routes = {
            _path(SERVICE, INFER): Route(UnaryCall, infer, together=True),
            _path(SERVICE, STREAM_INFER): Route(InferenceStream, infer, together=True),
            _path(HEALTH, "Check"): Route(UnaryCall, self._check, always=True),
            _path(HEALTH, "Watch"): Route(Watch, self._watch),
        }
        for method in methods:
            always = method.name in ALWAYS
            routes[_path(SERVICE, method.name)] = Route(
                UnaryCall, _answering(method), pools[method.kind], always=always
            )
        reflection = Reflection([SERVICE, HEALTH, *REFLECTION_SERVICES])
        for name in REFLECTION_SERVICES:
            routes[_path(name, "ServerReflectionInfo")] = Route(OrderedStream, reflection.ask, self._pools["control"])
        return routes

    def _speak(self, link: Link, first: bytes) -> Speaker | None:
        """gRPC, if these are the first bytes of HTTP/2; else a sentence for whoever has come to the wrong port."""
        if http2.PREFACE.startswith(first[: len(http2.PREFACE)]):
            return GrpcConnection(link, self._traffic) if len(first) >= len(http2.PREFACE) else None
        return PlainHttp(link)

    def _check(self, payload: bytes, call: Call) -> None:
        """The service's name is ignored, since all models share one readiness."""
        if wrong := _no_health_check(payload):
            call.fail(Code.INVALID_ARGUMENT, wrong)
        else:
            call.reply(_status(self._health.serving))

    def _watch(self, payload: bytes, watch: Watch) -> None:
        if wrong := _no_health_check(payload):
            watch.fail(Code.INVALID_ARGUMENT, wrong)
            return
        lock = threading.Lock()  # what is told last is what was looked at last
        told: bool | None = None

        def look() -> None:
            nonlocal told
            with lock:
                serving, leaving = self._health.serving, self._health.leaving
                if serving != told:
                    told = serving
                    watch.tell(_status(serving))
            if leaving:
                watch.fail(Code.OK, "")

        watch.on_cancel(self._health.subscribe(look))
        look()

    def stop(self, grace_seconds: float, busy: Callable[[], bool], refuse: Callable[[], None]) -> bool:
        """Refuses new calls and waits for inferences in flight, at most this long; True if none was cut off.

        What was sent before the clients have heard of it is answered, for a moment; `refuse` sees to it that what comes later is
        refused. `busy` says whether inferences are in flight. Whatever else is open then is cut off.
        """
        until = time.monotonic() + grace_seconds
        settle = min(SETTLE_SECONDS, grace_seconds / 4)
        self._on_loop(self._announce)
        time.sleep(settle)
        refuse()
        self._on_loop(self._leave_calls)
        while cut_off := busy() or self._on_loop(self._answering):
            if time.monotonic() >= until:
                break
            time.sleep(LOOK_SECONDS)
        self._on_loop(self._say_the_last)
        flushed = time.monotonic() + FLUSH_SECONDS
        while self._on_loop(self._unsent) and time.monotonic() < flushed:
            time.sleep(LOOK_SECONDS)
        # A connection that is closed while its client still sends is reset, with whatever the client has not read yet.
        self._on_loop(self._close_all)
        while grace_seconds and self._on_loop(self._any_left) and time.monotonic() < flushed:
            time.sleep(LOOK_SECONDS)
        self._on_loop(self._loop.end)
        self._loop.join(FLUSH_SECONDS)
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        return not cut_off

    def _on_loop(self, look: Callable[[], T]) -> T | None:
        """What `look` says on the thread of the loop; None when that has ended, or is stuck."""
        if not self._loop.alive:
            return None
        done = threading.Event()
        said: list[T] = []

        def run(_: object) -> None:
            said.append(look())
            done.set()

        self._loop.post(run)
        done.wait(STUCK_SECONDS)
        return said[0] if said else None

    def _close_all(self) -> None:
        for link in list(self._loop.links.values()):
            self._loop.close(link, "exit")

    def _any_left(self) -> bool:
        return bool(self._loop.links)

    def _connections(self) -> list[GrpcConnection]:
        return [link.speaker for link in self._loop.links.values() if isinstance(link.speaker, GrpcConnection)]

    def _answering(self) -> bool:
        return any(connection.answering for connection in self._connections())

    def _unsent(self) -> bool:
        return bool(self._traffic.unsent) or any(link.unsent is not None for link in self._loop.links.values())

    def _announce(self) -> None:
        self._loop.close_listener()
        now = now_ns()
        for connection in self._connections():
            connection.leave(now, "exit")

    def _leave_calls(self) -> None:
        for connection in self._connections():
            connection.leave_calls()

    def _say_the_last(self) -> None:
        for connection in self._connections():
            connection.say_the_last()


def _most_connections() -> int:
    """As many as there may be, less than the process has descriptors for: models, the log and the metrics need some too."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return CONNECTIONS
    return max(1, min(CONNECTIONS, allowed - min(SPARE_DESCRIPTORS, allowed // 2)))


def _path(service: str, method: str) -> bytes:
    return f"/{service}/{method}".encode()


def _answering(method: Method) -> Callable[[bytes, Call], None]:
    def ask(payload: bytes, call: Call) -> None:
        answer = answered(method, payload)
        if isinstance(answer, bytes):
            call.reply(answer)
        else:
            call.fail(*answer)

    return ask


def _no_health_check(payload: bytes) -> str:
    """Why these bytes are no request of health; "" if they are one."""
    try:
        health_pb2.HealthCheckRequest.FromString(payload)
    except DecodeError as error:
        return f"the request is not a HealthCheckRequest: {error}"
    return ""


def _status(serving: bool) -> bytes:
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    content: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return content
