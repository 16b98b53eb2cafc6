"""A small server that answers the repository calls as Triton does, and keeps what it was sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import json_format, text_format

from protos import grpc_service_pb2 as pb
from protos.model_config_pb2 import ModelConfig

Asked = Callable[..., tuple[int, str, str]]  # a command line -> exit code, standard output, standard error

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "pytorch": "pytorch_libtorch"}
FILES = {"onnxruntime": "model.onnx", "pytorch": "model.pt"}
IN_FORCE = """
    name: "vowels" backend: "onnxruntime" platform: "onnxruntime_onnx" default_model_filename: "model.onnx"
    max_batch_size: 16
    input { name: "x" data_type: TYPE_FP32 dims: [-1, 12] }
    version_policy { latest { num_versions: 2 } }
    dynamic_batching { max_queue_delay_microseconds: 500 }
    instance_group { name: "vowels_0" kind: KIND_CPU count: 1 }
"""


class Refusal(Exception):
    """What `TritonLike` answers instead."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


@dataclasses.dataclass
class TritonLike(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A server with one model, which keeps what it was sent; `refuse` names RPCs that are refused."""

    config: ModelConfig = dataclasses.field(default_factory=lambda: text_format.Parse(IN_FORCE, ModelConfig()))
    entries: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)
    refuse: dict[str, Refusal] = dataclasses.field(default_factory=dict)
    seen: list[Any] = dataclasses.field(default_factory=list)
    metadata: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    url: str = ""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        rpc = details.method.rpartition("/")[2]
        question = getattr(pb, SERVICE.methods_by_name[rpc].input_type.name)

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.metadata = list(details.invocation_metadata)
            try:
                if rpc in self.refuse:
                    raise self.refuse[rpc]
                if rpc != "ServerMetadata":
                    self.seen.append(request)
                return getattr(self, rpc)(request)
            except Refusal as refusal:
                context.abort(refusal.code, refusal.details)

        return grpc.unary_unary_rpc_method_handler(
            answer, question.FromString, lambda message: message.SerializeToString()
        )

    def ServerMetadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="triton-like")

    def RepositoryIndex(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        response = pb.RepositoryIndexResponse()
        for name, version, state, reason in self.entries:
            response.models.add(name=name, version=version, state=state, reason=reason)
        return response

    def ModelConfig(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        if request.name != self.config.name:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found")
        return pb.ModelConfigResponse(config=self.config)

    def RepositoryModelLoad(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        if "config" in request.parameters:
            config = json_format.Parse(request.parameters["config"].string_param, ModelConfig())
            if config.backend not in PLATFORMS:
                raise Refusal(
                    grpc.StatusCode.INVALID_ARGUMENT, f"load failed for model 'vowels':\n  no {config.backend}"
                )
            config.platform = config.platform or PLATFORMS[config.backend]
            config.default_model_filename = config.default_model_filename or FILES[config.backend]
            self.config = config
        return pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        return pb.RepositoryModelUnloadResponse()
