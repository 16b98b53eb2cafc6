"""The protocol's methods: each names its steps and does nothing else. Bytes come in, bytes go out; no network here.

`model_infer` answers through its `Call` from whichever thread has the answer; the other methods return theirs. An
unknown *model* is INVALID_ARGUMENT and an unknown *version* is NOT_FOUND, as Triton's clients expect.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import grpc

from protos import grpc_service_pb2 as pb
from serving import errors
from serving.batching.model import Lease
from serving.batching.plan import Pending
from serving.errors import InvalidRequest, NotImplementedHere, NotReady, ServingError
from serving.lifecycle.control import RepositoryControl
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.shadow import Comparison
from serving.protocol import codec
from serving.protocol.codec import Limits
from serving.protocol.statistics import model_statistics
from serving.repository import sent_files
from serving.signature.spec import Tensors
from serving.telemetry.timeline import Timeline, now_ns

log = logging.getLogger(__name__)

SERVER_NAME = "lstm-serving"
EXTENSIONS = (
    "classification",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "model_repository",
    "model_repository(unload_dependents)",
)

# The one table from our errors to gRPC codes.
CODES: Mapping[type[ServingError], grpc.StatusCode] = {
    errors.ServingError: grpc.StatusCode.INTERNAL,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownModel: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownVersion: grpc.StatusCode.NOT_FOUND,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.ControlDisabled: grpc.StatusCode.UNAVAILABLE,
    errors.NotInRepository: grpc.StatusCode.INTERNAL,
    errors.LoadFailed: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.NotImplementedHere: grpc.StatusCode.UNIMPLEMENTED,
    errors.Overloaded: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.ComputeFailed: grpc.StatusCode.INTERNAL,
    errors.StartupError: grpc.StatusCode.INTERNAL,
    errors.RepositoryError: grpc.StatusCode.INTERNAL,
    errors.MissingFormat: grpc.StatusCode.INTERNAL,
    errors.ModelConfigError: grpc.StatusCode.INTERNAL,
    errors.BackendUnavailable: grpc.StatusCode.INTERNAL,
    errors.VerificationFailed: grpc.StatusCode.INTERNAL,
}

# The codes by which a call is turned away before a model is found; each is counted from 0, so that a rate sees the first.
REFUSALS = ("INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "UNAUTHENTICATED")

# How a request that was not answered is counted; what is not named here has failed.
OUTCOMES: Mapping[type[ServingError], str] = {
    errors.InvalidRequest: "invalid",
    errors.InvalidInput: "invalid",
    errors.NotImplementedHere: "invalid",
    errors.Overloaded: "rejected",
    errors.NotReady: "rejected",
    errors.DeadlineExceeded: "expired",
    errors.Cancelled: "cancelled",
}


class Call(Protocol):
    """One call as the transport sees it. `reply` or `fail` is called exactly once, from any thread."""

    received_ns: int
    deadline_ns: int | None

    def reply(self, payload: bytes) -> None: ...

    def fail(self, code: grpc.StatusCode, message: str) -> None: ...

    def on_cancel(self, action: Callable[[], None]) -> None: ...


class InferenceService:
    """The methods of `inference.GRPCInferenceService` that this server has, named as in the protocol, in snake case.

    `refused` counts, by code, calls that were turned away before any model was found. `access_log` is the
    share of requests that are written to the log.
    """

    def __init__(
        self,
        manager: ModelManager,
        control: RepositoryControl,
        *,
        version: str,
        max_steps: int,
        access_log: float = 0.0,
    ) -> None:
        self._manager = manager
        self._control = control
        self._version = version
        self._max_steps = max_steps
        self._access_log = access_log
        self._exiting = False
        self._refusing = False
        self.refused = dict.fromkeys(REFUSALS, 0)

    def exit(self) -> None:
        """From now on the server is neither live nor ready; requests in flight go on."""
        self._exiting = True

    def refuse(self) -> None:
        """From now on inference requests are refused as soon as they are seen."""
        self._refusing = True

    @property
    def ready(self) -> bool:
        """Whether every model can answer and the server is not about to leave."""
        return not self._exiting and self._manager.ready()

    def server_live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        self._refuse_when_exiting()
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        self._refuse_when_exiting()
        return pb.ServerReadyResponse(ready=self.ready)

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        try:
            self._manager.acquire(request.name, request.version).release()
        except (errors.UnknownModel, errors.UnknownVersion, NotReady):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not self._exiting)

    def server_metadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=self._version, extensions=EXTENSIONS)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        with self._lease(request) as model:
            response = pb.ModelMetadataResponse(name=model.name, platform=model.config.platform)
            response.versions.extend(
                entry.version
                for entry in self._manager.entries()
                if entry.name == model.name and entry.state == "READY"
            )
            for tensors, shown in (
                (model.spec.advertised_inputs, response.inputs),
                (model.spec.advertised_outputs, response.outputs),
            ):
                for tensor in tensors:
                    shown.add(name=tensor.name, datatype=tensor.datatype, shape=model.spec.shown_shape(tensor))
            return response

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        with self._lease(request) as model:
            return pb.ModelConfigResponse(config=model.config)

    def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        known = self._manager.known(request.name)
        version = known.routes.version(request.version) if known else request.version
        entries = [
            entry
            for entry in self._manager.entries()
            if entry.state == "READY" and request.name in ("", entry.name) and version in ("", entry.version)
        ]
        if request.name and not entries:
            raise InvalidRequest(
                f"requested model version is not available for model '{request.name}'"
                if request.version
                else f"requested model '{request.name}' is not available"
            )
        response = pb.ModelStatisticsResponse()
        for entry in entries:
            measured = entry.model.order.measured if entry.model else ()
            response.model_stats.append(
                model_statistics(entry.name, entry.version, list(entry.counts.values()), measured)
            )
        return response

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        _check_repository(request.repository_name)
        response = pb.RepositoryIndexResponse()
        for entry in self._control.index():
            if entry.state == "READY" or not request.ready:
                response.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return response

    def repository_model_load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        self._refuse_when_exiting()
        _check_repository(request.repository_name)
        config, files = sent_files.parameters(request.parameters)
        self._control.load(request.model_name, config, files)
        return pb.RepositoryModelLoadResponse()

    def repository_model_unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        self._refuse_when_exiting()
        _check_repository(request.repository_name)
        for name, parameter in request.parameters.items():
            if name != "unload_dependents" or parameter.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidRequest(
                    f"unrecognized unload parameter '{name}'; known is unload_dependents, a bool_param"
                )
        self._control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def model_infer(self, payload: bytes, call: Call) -> None:
        """Decodes, checks and queues; the answer goes out through `call` when it is there."""
        inference = None
        try:
            if self._refusing:
                raise NotReady("Server exiting")
            request = codec.parse(payload)
            lease = self._manager.acquire(request.model_name, request.model_version)
            inference = _Inference(request, lease, call, self._access_log)
            limits = Limits(
                max_rows=lease.model.config.max_batch_size or 1,
                max_steps=self._max_steps,
                text_only=lease.model.text_only,
            )
            decoded = codec.decode(request, lease.model.spec, limits)
            inference.submit(decoded)
        except Exception as error:  # noqa: BLE001 - border: every call is answered
            if inference:
                inference.finish(_as_ours(error))
            else:
                self.count_refused(error)
                call.fail(*answer_for(error))

    def count_refused(self, error: Exception) -> None:
        """Counts a call that was turned away before any model was found."""
        code, _ = answer_for(error)
        self.refused[code.name] = self.refused.get(code.name, 0) + 1

    def _refuse_when_exiting(self) -> None:
        if self._exiting:
            raise NotReady("Server exiting")

    def _lease(self, request: pb.ModelMetadataRequest | pb.ModelConfigRequest) -> _Leased:
        return _Leased(self._manager.acquire(request.name, request.version))


def _check_repository(name: str) -> None:
    if name:
        raise NotImplementedHere("'repository_name' specification is not supported")


class _Leased:
    """A lease for the length of a `with` block."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def __enter__(self) -> Any:
        return self._lease.model

    def __exit__(self, *_: object) -> None:
        self._lease.release()


class _Inference:
    """One inference request from the lease on its model to the answer on the wire."""

    __slots__ = ("_access_log", "_call", "_classes", "_comparison", "_lease", "_payload", "_request", "_timeline")

    def __init__(self, request: pb.ModelInferRequest, lease: Lease, call: Call, access_log: float) -> None:
        self._request = request
        self._lease = lease
        self._call = call
        self._access_log = access_log
        self._timeline = Timeline(call.received_ns)
        self._payload = b""
        self._classes: Mapping[str, int] = {}
        self._comparison: Comparison | None = None
        lease.model.metrics.entered()

    def submit(self, decoded: codec.Decoded) -> None:
        """Hands the request to the batcher; raises what `Batcher.submit` raises."""
        self._timeline.decoded = now_ns()
        self._classes = decoded.classes
        pending = Pending(
            decoded.inputs,
            decoded.rows,
            decoded.outputs,
            self._timeline,
            self.encode,
            self.finish,
            self._call.deadline_ns,
            decoded.shared,
            self.move,
        )
        model = self._lease.model
        self._call.on_cancel(lambda: self._lease.model.cancel(pending))
        if shadow := model.shadow:
            self._comparison = shadow.offer(
                model.version, decoded.inputs, decoded.rows, decoded.outputs, decoded.shared
            )
        model.submit(pending)

    def move(self, lease: Lease) -> None:
        """Another model will answer."""
        self._lease.model.metrics.left()
        lease.model.metrics.entered()
        held, self._lease = self._lease, lease
        held.release()

    def encode(self, outputs: Tensors) -> None:
        """Makes the answer's bytes ready."""
        model = self._lease.model
        if self._comparison:
            self._comparison.answered(outputs)
        self._payload = codec.encode(self._request, model.version, model.spec, outputs, self._classes, model.labels)
        self._timeline.encoded = now_ns()

    def finish(self, error: ServingError | None) -> None:
        """Sends the answer or the error, counts an error, and gives the lease back."""
        model = self._lease.model
        code = grpc.StatusCode.OK
        if error is not None:
            code = CODES[type(error)]
            if self._comparison:
                self._comparison.give_up()
            model.metrics.refused(OUTCOMES.get(type(error), "failed"), now_ns() - self._timeline.received)
        if self._access_log and random.random() < self._access_log:
            fields = {
                "model": model.name,
                "version": model.version,
                "request_id": self._request.id,
                "code": code.name,
                "duration_ms": round((now_ns() - self._timeline.received) / 1e6, 3),
            }
            log.info("request" if error is None else str(error), extra={"fields": fields})
        self._lease.release()
        if error is None:
            self._call.reply(self._payload)
        else:
            self._call.fail(code, str(error))


def answer_for(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The code and the message by which a caller learns of an error."""
    ours = _as_ours(error)
    return CODES[type(ours)], str(ours)


def _as_ours(error: Exception) -> ServingError:
    """Errors that are not of our tree are faults of this server: logged in full, told in short."""
    if isinstance(error, ServingError):
        return error
    log.error("a fault of the server: %s", error, exc_info=error)
    return ServingError(f"internal error: {type(error).__name__}: {error}; the server's log has the details")
