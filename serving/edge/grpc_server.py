"""The edge: HTTP/2, plain or in TLS, through the public `grpc.server`. It takes bytes and gives bytes and knows no model.

A handler thread of `grpc.server` must stay until its answer is there, and this is the only file in which anything waits
for one: replacing the edge means replacing this file. Without `grpc.so_reuseport: 0` a second server binds the same
port without an error and takes half of the connections.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection

from protos import grpc_service_pb2 as pb
from serving.edge.health import HealthService
from serving.edge.streams import Streams
from serving.edge.tls import Certificates, Tokens
from serving.errors import StartupError
from serving.protocol.service import InferenceService, answer_for
from serving.telemetry.timeline import now_ns

log = logging.getLogger(__name__)

# Inferences that may wait for their answer at the same time; the rest of the calls have threads of their own, so that
# health checks are answered under overload too.
INFERENCE_THREADS = 256
CONTROL_THREADS = 16
REFLECTION_THREADS = 4
LOADERS = 4  # loads and unloads at the same time; they are done on these threads, more wait
WATCHERS = 64  # health watches that are open at the same time; each holds a thread, more wait
STREAMS = 256  # likewise for streams of inferences
# Calls beyond this many are turned away by gRPC itself; clients see RESOURCE_EXHAUSTED.
MAX_CONCURRENT_CALLS = 2048
PENDING_CALLS = 100_000
SETTLE_SECONDS = 0.1  # in which gRPC hands over whatever it has received, at full load as well
# What the network may still take when the last answer has been handed to gRPC.
FLUSH_SECONDS = 0.5
# Longer error messages would make the trailing metadata too large, and the client would see something else instead.
MAX_DETAILS_BYTES = 1000

LOADING = ("RepositoryModelLoad", "RepositoryModelUnload")

_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class Transport:
    """The gRPC port.

    Raises `StartupError` from `__init__` when the address cannot be bound. `port` is the one that was bound (useful
    when 0 was asked for). `max_message_bytes` bounds requests and answers alike. Without `certificates` the port is
    plain; without `tokens` everybody may call.
    """

    def __init__(
        self,
        service: InferenceService,
        health: HealthService,
        host: str,
        port: int,
        *,
        max_message_bytes: int,
        certificates: Certificates | None,
        tokens: Tokens | None,
    ) -> None:
        inference, control, reflecting, watching, streaming, loading = self._pools = tuple(
            ThreadPoolExecutor(threads, thread_name_prefix=prefix)
            for threads, prefix in (
                (INFERENCE_THREADS, "infer"),
                (CONTROL_THREADS, "control"),
                (REFLECTION_THREADS, "reflection"),
                (WATCHERS, "watch"),
                (STREAMS, "stream"),
                (LOADERS, "loader"),
            )
        )
        self._server = grpc.server(
            reflecting,
            interceptors=(tokens,) if tokens else (),
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.so_reuseport", 0),
                # gRPC's own bounds on calls that nobody has picked up would answer CANCELLED, which means something else.
                ("grpc.server.max_pending_requests", PENDING_CALLS),
                ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
            ],
        )
        handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(_on(inference, _waiting(service.model_infer)))}
        self._streams = Streams(service.model_infer)
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(_on(streaming, self._streams.handle))
        for name, method in _control_methods(service).items():
            pool = loading if name in LOADING else control
            handlers[name] = grpc.unary_unary_rpc_method_handler(_on(pool, _guarded(name, method)))
        self._server.add_registered_method_handlers(_SERVICE.full_name, handlers)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers),))
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        coding = (health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString)
        health_handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(_on(control, health.check), *coding),
            "Watch": grpc.unary_stream_rpc_method_handler(_on(watching, health.watch), *coding),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(health_name, health_handlers),))
        served = (
            _SERVICE.full_name,
            health_name,
            reflection.SERVICE_NAME,
        )
        reflection.enable_server_reflection(served, self._server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificates:
                self.port: int = self._server.add_secure_port(address, certificates.credentials())
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(
                f"the gRPC address {address} cannot be bound: the port is taken or the host is not one of this machine; "
                "choose others with --host and --grpc-port"
            ) from error
        self._server.start()

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
            if not still_busy and not self._streams.open():
                self._server.stop(FLUSH_SECONDS)
                stopped.wait(2 * FLUSH_SECONDS)
                break
        # What gRPC has cut off when the time was over may have ended since, like any call whose client has gone.
        cut_off = busy() or (still_busy and time.monotonic() >= until)
        stopped.wait(2 * FLUSH_SECONDS)
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        return not cut_off


class _BlockingCall:
    """A call whose handler thread waits for the answer."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.received_ns = now_ns()
        remaining = context.time_remaining()
        self.deadline_ns = None if remaining is None else self.received_ns + int(remaining * 1e9)
        self._context = context
        self._answer: queue.SimpleQueue[bytes | tuple[grpc.StatusCode, str]] = queue.SimpleQueue()

    def reply(self, payload: bytes) -> None:
        self._answer.put(payload)

    def fail(self, code: grpc.StatusCode, message: str) -> None:
        self._answer.put((code, _details(message)))

    def on_cancel(self, action: Callable[[], None]) -> None:
        if not self._context.add_callback(action):
            action()

    def wait(self) -> bytes:
        answer = self._answer.get()
        if isinstance(answer, bytes):
            return answer
        raise self._context.abort(*answer)


Handler = Callable[[Any, grpc.ServicerContext], Any]


def _on(pool: ThreadPoolExecutor, handler: Handler) -> Handler:
    """The handler, run on threads of this pool, so that one kind of call cannot take the threads of another."""

    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        return handler(request, context)

    handle.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return handle


def _waiting(method: Callable[[bytes, Any], None]) -> Handler:
    def handle(payload: bytes, context: grpc.ServicerContext) -> bytes:
        call = _BlockingCall(context)
        method(payload, call)
        return call.wait()

    return handle


def _details(message: str) -> str:
    """An error's message, cut where it would be too long to travel."""
    encoded = message.encode(errors="replace")
    return message if len(encoded) <= MAX_DETAILS_BYTES else encoded[:MAX_DETAILS_BYTES].decode(errors="ignore") + "..."


def _control_methods(service: InferenceService) -> Mapping[str, Callable[[Message], Message]]:
    """The unary methods of the protocol that the service has; gRPC answers the others with UNIMPLEMENTED."""
    found = {}
    for method in _SERVICE.methods:
        snake_case = "".join(f"_{c.lower()}" if c.isupper() else c for c in method.name).lstrip("_")
        if method.name != "ModelInfer" and hasattr(service, snake_case):
            found[method.name] = getattr(service, snake_case)
    return found


def _guarded(name: str, method: Callable[[Any], Message]) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    request_class = getattr(pb, _SERVICE.methods_by_name[name].input_type.name)

    def handle(payload: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return method(request_class.FromString(payload)).SerializeToString()
        except DecodeError as error:
            code, message = grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a {request_class.__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - border: every call is answered
            code, message = answer_for(error)
        raise context.abort(code, _details(message))

    return handle
