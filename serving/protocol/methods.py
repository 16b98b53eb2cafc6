"""Every method of `inference.GRPCInferenceService` that this server has, in one table; an edge answers no other."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from protos import grpc_service_pb2 as pb
from serving.protocol.codes import Code, answer_for
from serving.protocol.control import Control
from serving.protocol.metadata import Metadata

SERVICE = "inference.GRPCInferenceService"
INFER, STREAM_INFER = "ModelInfer", "ModelStreamInfer"  # answered by `protocol.inference`, one call at a time


class Kind(enum.Enum):
    """What a method costs, so that an edge can keep those that take long away from the others."""

    LOOK = "look"  # answered at once
    LOAD = "load"  # answered when something has been loaded, or what was taken in has been answered


class Method(NamedTuple):
    """One unary method: its name and request as in the protocol, what answers it, and how long that may take."""

    name: str
    request: type[Message]
    answer: Callable[[Any], Message]
    kind: Kind = Kind.LOOK


def methods(metadata: Metadata, control: Control) -> tuple[Method, ...]:
    """The table of the unary methods, those of inference left out."""
    return (
        Method("ServerLive", pb.ServerLiveRequest, metadata.server_live),
        Method("ServerReady", pb.ServerReadyRequest, metadata.server_ready),
        Method("ModelReady", pb.ModelReadyRequest, metadata.model_ready),
        Method("ServerMetadata", pb.ServerMetadataRequest, metadata.server_metadata),
        Method("ModelMetadata", pb.ModelMetadataRequest, metadata.model_metadata),
        Method("ModelConfig", pb.ModelConfigRequest, metadata.model_config),
        Method("ModelStatistics", pb.ModelStatisticsRequest, metadata.model_statistics),
        Method("RepositoryIndex", pb.RepositoryIndexRequest, control.repository_index),
        Method("RepositoryModelLoad", pb.RepositoryModelLoadRequest, control.repository_model_load, Kind.LOAD),
        Method("RepositoryModelUnload", pb.RepositoryModelUnloadRequest, control.repository_model_unload, Kind.LOAD),
    )


def answered(method: Method, payload: bytes) -> bytes | tuple[Code, str]:
    """The answer's bytes, or the code and the message of what went wrong. Never raises."""
    try:
        return method.answer(method.request.FromString(payload)).SerializeToString()
    except DecodeError as error:
        return Code.INVALID_ARGUMENT, f"the request is not a {method.request.__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - border: every call is answered
        return answer_for(error)
