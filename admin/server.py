"""A connection to a running server: one RPC at a time, and one sentence when an RPC fails.

The first RPC is preceded by a greeting, because gRPC says UNAVAILABLE both when nobody is there and when a server
refuses to load models. A server that has answered the greeting is there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from commands import access
from protos import grpc_service_pb2 as pb
from protos import model_config_pb2

GREETING_SECONDS = 10.0
_CODE = grpc.StatusCode


class AdminError(Exception):
    """What was asked cannot be done; the text is the one sentence that the caller reads (exit code 1)."""


class UsageError(AdminError):
    """What was asked makes no sense (exit code 2)."""


class Server:
    """The server at `url` (HOST:PORT). The first call makes the connection, and the end of the `with` block ends it.

    `credentials` for TLS, None for a plain connection; `metadata` goes with every call. Every method raises `AdminError`
    when nobody is there, when the answer takes more than `timeout_seconds`, and with the server's words when it refuses.
    """

    declared: Any = pb  # where its service and messages are
    service = "GRPCInferenceService"
    options: Sequence[tuple[str, int]] = ()

    def __init__(
        self,
        url: str,
        credentials: grpc.ChannelCredentials | None,
        metadata: tuple[tuple[str, str], ...],
        timeout_seconds: float,
    ) -> None:
        self._url = url
        self._metadata = metadata
        self._encrypted = credentials is not None
        self._timeout_seconds = timeout_seconds
        self._channel = (
            grpc.secure_channel(url, credentials, self.options)
            if credentials
            else grpc.insecure_channel(url, self.options)
        )
        self._greeted = False

    def call(self, rpc: str, /, **fields: Any) -> Any:
        """The answer to one RPC, whose request has these fields."""
        if not self._greeted:
            self._greet()
        try:
            return self._send(rpc, self._timeout_seconds, **fields)
        except grpc.RpcError as error:
            if error.code() == _CODE.DEADLINE_EXCEEDED:
                raise AdminError(
                    f"{rpc} took more than {self._timeout_seconds:g} s (--timeout-seconds); the server may still be at it: "
                    "ask with the command index"
                ) from error
            raise AdminError(f"the server refuses {rpc}: {said(error)}{self.hint(error)}") from error

    def config(self, model: str, version: str = "") -> model_config_pb2.ModelConfig:
        """The configuration of `model` that is in force; of the version that answers who names none, unless one is named."""
        config: model_config_pb2.ModelConfig = self.call("ModelConfig", name=model, version=version).config
        return config

    def load(self, model: str, config: model_config_pb2.ModelConfig | None = None) -> float:
        """Loads `model`, with `config` instead of what its repository says, if given. Returns how many seconds it took."""
        request = pb.RepositoryModelLoadRequest(model_name=model)
        if config is not None:
            text = json_format.MessageToJson(config, preserving_proto_field_name=True, indent=None)
            request.parameters["config"].string_param = text
        began = time.monotonic()
        self.call("RepositoryModelLoad", model_name=model, parameters=request.parameters)
        return time.monotonic() - began

    def hint(self, _error: grpc.RpcError) -> str:
        """What else there is to say of a refusal."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def _greet(self) -> None:
        try:
            self._send("ServerMetadata", min(GREETING_SECONDS, self._timeout_seconds))
        except grpc.RpcError as error:
            if error.code() in (_CODE.UNAVAILABLE, _CODE.DEADLINE_EXCEEDED):
                wanted = (
                    "a client certificate (--tls-cert FILE, --tls-key FILE)"
                    if self._encrypted
                    else "TLS (--tls-ca FILE)"
                )
                raise AdminError(
                    f"no server answers at {self._url}: {said(error)}; is it running, is that its gRPC port, and does it "
                    f"want {wanted}?"
                ) from error
            tokenless = error.code() == _CODE.UNAUTHENTICATED and not self._metadata
            hint = "; give it one with --token-file FILE" if tokenless else ""
            raise AdminError(f"the server at {self._url} refuses to talk: {said(error)}{hint}") from error
        self._greeted = True

    def _send(self, rpc: str, timeout_seconds: float, /, **fields: Any) -> Any:
        service = self.declared.DESCRIPTOR.services_by_name[self.service]
        method = service.methods_by_name[rpc]
        answer: type[Message] = getattr(self.declared, method.output_type.name)
        send = self._channel.unary_unary(
            f"/{service.full_name}/{rpc}", lambda message: message.SerializeToString(), answer.FromString
        )
        request = getattr(self.declared, method.input_type.name)(**fields)
        return send(request, timeout=timeout_seconds, metadata=self._metadata)


Made = TypeVar("Made", bound=Server)


def from_options(options: argparse.Namespace, kind: type[Made]) -> Made:
    """The server that the command line names. Raises `UsageError` for files that cannot be read or do not belong together."""
    try:
        given = access.read(options)
    except access.AccessError as error:
        raise UsageError(str(error)) from error
    credentials = grpc.ssl_channel_credentials(*given.tls) if given.tls else None
    return kind(options.url, credentials, given.metadata, options.timeout_seconds)


def one_line(text: str) -> str:
    """The text with every run of white space as one blank: a message of a server may have several lines."""
    return " ".join(text.split())


def said(error: grpc.RpcError) -> str:
    """A refusal in one line: its code, and the server's words."""
    return f"{error.code().name}: {one_line(error.details() or 'no reason is given')}"
