"""What a client may ask about the server and its models: liveness, readiness, metadata, configuration, statistics."""

from __future__ import annotations

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest, NotReady, UnknownModel, UnknownVersion
from serving.lifecycle.manager import ModelManager
from serving.protocol.statistics import model_statistics

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


class Metadata:
    """The methods of `inference.GRPCInferenceService` that only look. `name` and `version` are the server's own."""

    def __init__(self, manager: ModelManager, *, version: str, name: str = SERVER_NAME) -> None:
        self._manager = manager
        self._name = name
        self._version = version
        self.exiting = False  # then the server is neither live nor ready; requests in flight go on

    @property
    def ready(self) -> bool:
        """Whether every model can answer and the server is not about to leave."""
        return not self.exiting and self._manager.ready()

    def refuse_when_exiting(self) -> None:
        """Raises `NotReady` when the server leaves."""
        if self.exiting:
            raise NotReady("Server exiting")

    def server_live(self, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        self.refuse_when_exiting()
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        self.refuse_when_exiting()
        return pb.ServerReadyResponse(ready=self.ready)

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        try:
            self._manager.acquire(request.name, request.version).release()
        except (UnknownModel, UnknownVersion, NotReady):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not self.exiting)

    def server_metadata(self, _request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=self._name, version=self._version, extensions=EXTENSIONS)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        with self._manager.acquire(request.name, request.version) as model:
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
        with self._manager.acquire(request.name, request.version) as model:
            return pb.ModelConfigResponse(config=model.config)

    def model_statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        version = self._manager.version_of(request.name, request.version)
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
            response.model_stats.append(model_statistics(entry.name, entry.version, entry.counts.values()))
        return response
