"""What a client may send along with RepositoryModelLoad: another configuration, and the files of the model themselves."""

from __future__ import annotations

from collections.abc import Mapping

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest
from serving.repository.sent_files import FILE_PREFIX


def read(sent: Mapping[str, pb.ModelRepositoryParameter]) -> tuple[str | None, dict[str, bytes]]:
    """The configuration, None if there is none, and the files by their paths. Raises `InvalidRequest`."""
    config, files = None, {}
    for name, parameter in sent.items():
        kind = parameter.WhichOneof("parameter_choice")
        if name == "config":
            if kind != "string_param":
                raise InvalidRequest("invalid value type for load parameter 'config', expected string_param.")
            config = parameter.string_param
        elif name.startswith(FILE_PREFIX):
            if kind != "bytes_param":
                raise InvalidRequest(f"invalid value type for load parameter '{name[:200]}', expected bytes_param.")
            files[name.removeprefix(FILE_PREFIX)] = parameter.bytes_param
        else:
            raise InvalidRequest(f"unrecognized load parameter '{name[:200]}'; known are config and file:VERSION/PATH")
    if files and config is None:
        raise InvalidRequest("load parameter 'config' must be sent along with files: they replace the whole model")
    return config, files
