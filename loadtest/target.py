"""The server under test as it describes itself: its name, the model's metadata, and its own account of the time.

ModelStatistics only counts upwards, so a mean over a run is a difference of two readings, and whatever another client
asked in between is in it too.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from loadtest.calls import CHANNEL_OPTIONS
from loadtest.endpoint import Endpoint
from loadtest.errors import LoadTestError
from protos import grpc_service_pb2 as pb
from protos import model_config_pb2 as pb_config

_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
STAGES = ("queue", "compute_input", "compute_infer", "compute_output")  # the protocol's names
_ACCOUNT_SECONDS = 2.0  # a stalled server must not hold up the clock of a run for long


@dataclasses.dataclass(frozen=True)
class Account:
    """What the server has counted so far: requests answered, and nanoseconds by stage."""

    answered: int
    stage_ns: tuple[int, ...]

    def means_since(self, before: Account) -> dict[str, float] | None:
        """Mean seconds of a request in each of `STAGES` since then; None if none was answered."""
        answered = self.answered - before.answered
        if answered <= 0:
            return None
        spent = zip(STAGES, self.stage_ns, before.stage_ns, strict=True)
        return {stage: (after - earlier) / answered / 1e9 for stage, after, earlier in spent}


class Target:
    """A connection for questions about the server, apart from the one that carries the load."""

    def __init__(self, endpoint: Endpoint, channel: grpc.Channel, timeout_seconds: float) -> None:
        self.endpoint = endpoint
        self._channel = channel
        self._timeout_seconds = timeout_seconds
        try:
            metadata = self._call("ServerMetadata")
        except grpc.RpcError as error:
            raise LoadTestError(
                f"no server answers at {endpoint.url}: {error.code().name}: {error.details()}; "
                "is it running, and is that its gRPC port?"
            ) from error
        self.name = f"{metadata.name} {metadata.version}".strip()

    def model(self, name: str, version: str) -> pb.ModelMetadataResponse:
        """What goes into the model. Raises `LoadTestError` with the server's words if it does not have it."""
        try:
            metadata: pb.ModelMetadataResponse = self._call("ModelMetadata", name=name, version=version)
        except grpc.RpcError as error:
            raise LoadTestError(
                f"{self.name} at {self.endpoint.url} does not offer the model {name!r}: {error.code().name}: {error.details()}"
            ) from error
        return metadata

    def config(self, name: str, version: str) -> pb_config.ModelConfig | None:
        """What the server says of how the model is served; None if it does not say."""
        try:
            config: pb_config.ModelConfig = self._call("ModelConfig", name=name, version=version).config
        except grpc.RpcError:
            return None
        return config

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """One request beside the load. Raises `LoadTestError` with the server's words."""
        try:
            answer: pb.ModelInferResponse = self._send("ModelInfer", request)
        except grpc.RpcError as error:
            raise LoadTestError(f"{error.code().name}: {error.details()}") from error
        return answer

    def account(self, name: str, version: str) -> Account | None:
        """The server's count of this model now; None if it keeps none or does not answer in time."""
        try:
            statistics = self._call("ModelStatistics", _ACCOUNT_SECONDS, name=name, version=version)
        except grpc.RpcError:
            return None
        models = [model.inference_stats for model in statistics.model_stats]
        stages = tuple(sum(getattr(model, stage).ns for model in models) for stage in STAGES)
        return Account(sum(model.success.count for model in models), stages)

    def _call(self, rpc: str, timeout_seconds: float | None = None, /, **fields: str) -> Any:
        method = _SERVICE.methods_by_name[rpc]
        return self._send(rpc, getattr(pb, method.input_type.name)(**fields), timeout_seconds)

    def _send(self, rpc: str, request: Message, timeout_seconds: float | None = None) -> Any:
        method = _SERVICE.methods_by_name[rpc]
        answer: type[Message] = getattr(pb, method.output_type.name)
        send = self._channel.unary_unary(
            f"/{_SERVICE.full_name}/{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return send(
            request,
            timeout=timeout_seconds or self._timeout_seconds,
            metadata=self.endpoint.metadata,
        )


@contextlib.contextmanager
def connect(endpoint: Endpoint, timeout_seconds: float) -> Iterator[Target]:
    """The server there. Raises `LoadTestError` if none answers within the time."""
    if endpoint.credentials:
        opened = grpc.secure_channel(endpoint.url, endpoint.credentials, options=CHANNEL_OPTIONS)
    else:
        opened = grpc.insecure_channel(endpoint.url, options=CHANNEL_OPTIONS)
    with opened as channel:
        yield Target(endpoint, channel, timeout_seconds)
