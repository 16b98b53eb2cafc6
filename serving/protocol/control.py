"""The model repository extension: the index, loading and unloading, as clients ask."""

from __future__ import annotations

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest, NotImplementedHere
from serving.lifecycle.control import RepositoryControl
from serving.protocol import load_parameters
from serving.protocol.metadata import Metadata


class Control:
    """The methods of `inference.GRPCInferenceService` that show and change what is loaded."""

    def __init__(self, control: RepositoryControl, metadata: Metadata) -> None:
        self._control = control
        self._metadata = metadata

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        _check_repository(request.repository_name)
        response = pb.RepositoryIndexResponse()
        for entry in self._control.index():
            if entry.state == "READY" or not request.ready:
                response.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return response

    def repository_model_load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        self._metadata.refuse_when_exiting()
        _check_repository(request.repository_name)
        config, files = load_parameters.read(request.parameters)
        self._control.load(request.model_name, config, files)
        return pb.RepositoryModelLoadResponse()

    def repository_model_unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        self._metadata.refuse_when_exiting()
        _check_repository(request.repository_name)
        for name, parameter in request.parameters.items():
            if name != "unload_dependents" or parameter.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidRequest(
                    f"unrecognized unload parameter '{name}'; known is unload_dependents, a bool_param"
                )
        self._control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()


def _check_repository(name: str) -> None:
    if name:
        raise NotImplementedHere("'repository_name' specification is not supported")
