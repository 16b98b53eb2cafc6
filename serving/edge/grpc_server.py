"""The edge: HTTP/2, plain or in TLS, through the public `grpc.server`. It takes bytes and gives bytes and knows no model.

A handler thread of `grpc.server` must stay until its answer is there. Threads wait for answers here and in `grpc_streams`,
and nowhere else. Without `grpc.so_reuseport: 0` a second server binds the same port without an error and takes half of the
connections.
"""

from __future__ import annotations

import hashlib
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from serving.edge.deadline import deadline_ns
from serving.edge.grpc_health import HealthService
from serving.edge.grpc_status import abort
from serving.edge.grpc_streams import Infer, StreamHandler
from serving.edge.grpc_tls import credentials
from serving.edge.health import HealthState
from serving.edge.streams import OpenStreams
from serving.edge.tls import Certificates
from serving.edge.tokens import Tokens
from serving.edge.traffic import LOADERS, AskAll, Limits
from serving.errors import StartupError
from serving.protocol.call import Call
from serving.protocol.codes import Code, answer_for
from serving.protocol.methods import INFER, SERVICE, STREAM_INFER, Kind, Method, answered
from serving.telemetry.timeline import now_ns

# Inferences that may wait for their answer at the same time; the rest of the calls have threads of their own, so that
# health checks are answered under overload too.
INFERENCE_THREADS = 256
CONTROL_THREADS = 16
REFLECTION_THREADS = 4
WATCHERS = 64  # health watches that are open at the same time; each holds a thread, more wait
STREAMS = 256  # likewise for streams of inferences
# Calls beyond this many are turned away by gRPC itself; clients see RESOURCE_EXHAUSTED.
MAX_CONCURRENT_CALLS = 2048
PENDING_CALLS = 100_000
FOREVER_MS = 2**31 - 1
PING_INTERVAL_MS = (
    10_000  # as often as clients may ask whether the server is there; gRPC's own 5 minutes end connections of most
)
SETTLE_SECONDS = 0.1  # in which gRPC hands over whatever it has received, at full load as well
# What the network may still take when the last answer has been handed to gRPC.
FLUSH_SECONDS = 0.5


class GrpcServer:
    """The gRPC port.

    `infer_all` answers inference requests, `methods` all others. Raises `StartupError` from `__init__` when the address
    cannot be bound. `port` is the one that was bound (useful when 0 was asked for). `limits` bound what clients may send and
    how long their connections last, as far as gRPC lets us. Without `certificates` the port is plain; without `tokens`
    everybody may call, and `turned_away` is told the code of every call that has none.
    """

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
        self._pools = {
            name: ThreadPoolExecutor(threads, thread_name_prefix=name)
            for name, threads in (
                ("infer", INFERENCE_THREADS),
                ("control", CONTROL_THREADS),
                ("reflection", REFLECTION_THREADS),
                ("watch", WATCHERS),
                ("stream", STREAMS),
                ("loader", LOADERS),
            )
        }
        self._streams = OpenStreams()
        self.counts = None  # gRPC tells nothing of its connections
        self._server = grpc.server(
            self._pools["reflection"],
            interceptors=(_Doorkeeper(tokens, turned_away),) if tokens else (),
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            options=[
                *_options(limits),
                ("grpc.so_reuseport", 0),
                # gRPC's own bounds on calls that nobody has picked up would answer CANCELLED, which means something else.
                ("grpc.server.max_pending_requests", PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
            ],
        )

        def infer(payload: bytes, call: Call) -> None:
            infer_all([(payload, call)])

        self._tokens = tokens
        self._add_methods(infer, methods)
        self._add_health(HealthService(health))
        self.port: int = self._bind(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", certificates)
        self._server.start()

    def _add_methods(self, infer: Infer, methods: Sequence[Method]) -> None:
        pools = {Kind.LOOK: self._pools["control"], Kind.LOAD: self._pools["loader"]}
        streaming = StreamHandler(infer, self._streams, self._caller_of)
        handlers = {
            INFER: grpc.unary_unary_rpc_method_handler(_on(self._pools["infer"], _waiting(infer, self._caller_of))),
            STREAM_INFER: grpc.stream_stream_rpc_method_handler(_on(self._pools["stream"], streaming)),
        }
        for method in methods:
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(_on(pools[method.kind], _answering(method)))
        self._server.add_registered_method_handlers(SERVICE, handlers)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _caller_of(self, context: grpc.ServicerContext) -> str:
        """Who calls, by the token that the call carries, else by the subject of its certificate; empty where it has neither."""
        if self._tokens and (caller := self._tokens.caller(context.invocation_metadata())):
            return caller
        shown = context.auth_context()
        names = [*shown.get("x509_subject", ()), *shown.get("x509_subject_alternative_name", ())]
        if any(names):
            return f"certificate:{b';'.join(names).decode(errors='replace')}"
        return "".join(f"certificate:{hashlib.sha256(pem).hexdigest()}" for pem in shown.get("x509_pem_cert", ()))

    def _add_health(self, health: HealthService) -> None:
        name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        coding = (health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString)
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(_on(self._pools["control"], health.check), *coding),
            "Watch": grpc.unary_stream_rpc_method_handler(_on(self._pools["watch"], health.watch), *coding),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        reflection.enable_server_reflection((SERVICE, name, reflection.SERVICE_NAME), self._server)

    def _bind(self, address: str, certificates: Certificates | None) -> int:
        try:
            port: int = (
                self._server.add_secure_port(address, credentials(certificates))
                if certificates
                else self._server.add_insecure_port(address)
            )
        except RuntimeError as error:
            raise StartupError(
                f"the gRPC address {address} cannot be bound: the port is taken or the host is not one of this machine; "
                "choose others with --host and --grpc-port"
            ) from error
        return port

    def stop(self, grace_seconds: float, busy: Callable[[], bool], refuse: Callable[[], None]) -> bool:
        """Refuses new calls and waits for inferences in flight, at most this long; True if none was cut off.

        `busy` says whether inferences are in flight. Whatever else is open then (a reflection stream, a call whose
        message never came) is cut off as soon as they are answered. gRPC cancels what it has received and not handed over
        yet, without saying what that is; so what was sent before is answered for a moment, and for another `refuse` sees
        to it that nothing waits to be handed over.
        """
        until = time.monotonic() + grace_seconds
        settle = min(SETTLE_SECONDS, grace_seconds / 4)
        time.sleep(settle)
        refuse()
        time.sleep(settle)
        still_busy = busy()
        stopped = self._server.stop(grace_seconds)
        self._streams.leave()
        while not stopped.wait(0.02) and time.monotonic() < until:
            still_busy = busy()
            if not still_busy and not self._streams:
                self._server.stop(FLUSH_SECONDS)
                stopped.wait(2 * FLUSH_SECONDS)
                break
        # What gRPC has cut off when the time was over may have ended since, like any call whose client has gone.
        cut_off = busy() or (still_busy and time.monotonic() >= until)
        stopped.wait(2 * FLUSH_SECONDS)
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        return not cut_off


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.keepalive_time_ms", _milliseconds(limits.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _milliseconds(limits.keepalive_timeout_seconds)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS),
        ("grpc.max_connection_idle_ms", _milliseconds(limits.idle_seconds)),
        ("grpc.max_connection_age_ms", _milliseconds(limits.age_seconds)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(limits.age_grace_seconds)),
    ]


def _milliseconds(seconds: float) -> int:
    """As gRPC counts; where 0 is for ever, the largest number is."""
    return min(int(seconds * 1000), FOREVER_MS) if seconds else FOREVER_MS


class _BlockingCall:
    """A call whose handler thread waits for the answer."""

    on_stream = 0

    def __init__(self, context: grpc.ServicerContext, caller: str) -> None:
        self.caller = caller
        self.gone = False
        self.received_ns = now_ns()
        self.deadline_ns = deadline_ns(context, self.received_ns)
        self._context = context
        self._answer: queue.SimpleQueue[bytes | tuple[Code, str, int]] = queue.SimpleQueue()

    def reply(self, payload: bytes) -> None:
        self._answer.put(payload)

    @staticmethod
    def reply_all(answers: Sequence[tuple[_BlockingCall, bytes]]) -> None:
        for call, payload in answers:
            call.reply(payload)

    def fail(self, code: Code, message: str, retry_ms: int = 0) -> None:
        self._answer.put((code, message, retry_ms))

    def on_cancel(self, action: Callable[[], None]) -> None:
        if not self._context.add_callback(action):
            action()

    def wait(self) -> bytes:
        answer = self._answer.get()
        if isinstance(answer, bytes):
            return answer
        abort(self._context, *answer)


Handler = Callable[[Any, grpc.ServicerContext], Any]


def _on(pool: ThreadPoolExecutor, handler: Handler) -> Handler:
    """The handler, run on threads of this pool, so that one kind of call cannot take the threads of another."""

    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        return handler(request, context)

    handle.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return handle


def _waiting(infer: Infer, caller_of: Callable[[grpc.ServicerContext], str]) -> Handler:
    def handle(payload: bytes, context: grpc.ServicerContext) -> bytes:
        call = _BlockingCall(context, caller_of(context))
        infer(payload, call)
        return call.wait()

    return handle


def _answering(method: Method) -> Handler:
    def handle(payload: bytes, context: grpc.ServicerContext) -> bytes:
        answer = answered(method, payload)
        return answer if isinstance(answer, bytes) else abort(context, *answer)

    return handle


class _Doorkeeper(grpc.ServerInterceptor):  # type: ignore[misc]
    """Turns calls away that carry none of the tokens, without reading anything of them."""

    def __init__(self, tokens: Tokens, turned_away: Callable[[str], None]) -> None:
        self._tokens = tokens
        self._turned_away = turned_away

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """The handler of the call, or one that turns it away."""
        error = self._tokens.refusal(details.method, details.invocation_metadata)
        if error is None:
            return continuation(details)
        code, message = answer_for(error)
        self._turned_away(code.name)

        def turn_away(_requests: Any, context: grpc.ServicerContext) -> Any:
            abort(context, code, message)

        return grpc.stream_stream_rpc_method_handler(turn_away)  # which fits every kind of call
