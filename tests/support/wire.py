"""A raw client made of our own messages: for what `tritonclient` would hide, and for processes that hold our protos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message

from protos import grpc_service_pb2 as pb
from tests.support.fake_models import FEATURES

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class RawClient:
    """One connection; `call` for one RPC by name, `infer` for the fake models."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, [("grpc.max_send_message_length", -1)])

    def call(self, rpc: str, /, **fields: Any) -> Any:
        return self.method(rpc)(getattr(pb, f"{rpc}Request")(**fields), timeout=30)

    def method(self, name: str) -> Any:
        method = SERVICE.methods_by_name[name]
        answer: type[Message] = getattr(pb, method.output_type.name)
        return self.channel.unary_unary(
            f"/{SERVICE.full_name}/{name}", lambda message: message.SerializeToString(), answer.FromString
        )

    def infer(self, model: str = "fake", value: float = 1.0, steps: int = 2, timeout: float = 30) -> Any:
        """Sends one row of `value`; returns `y`."""
        answer = self.method("ModelInfer")(request(model, value, steps), timeout=timeout)
        return np.frombuffer(answer.raw_output_contents[0], np.float32)

    def infer_later(self, model: str = "fake", value: float = 1.0, steps: int = 2, timeout: float = 30) -> Any:
        """The same without waiting: a future."""
        return self.method("ModelInfer").future(request(model, value, steps), timeout=timeout)

    def load(self, model: str, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """RepositoryModelLoad, with a configuration and files (`VERSION/PATH`) if there are any."""
        sent = {} if config is None else {"config": pb.ModelRepositoryParameter(string_param=config)}
        for path, content in (files or {}).items():
            sent[f"file:{path}"] = pb.ModelRepositoryParameter(bytes_param=content)
        load = self.method("RepositoryModelLoad")
        load(pb.RepositoryModelLoadRequest(model_name=model, parameters=sent), timeout=120)

    def unload(self, model: str) -> None:
        """RepositoryModelUnload, with what `tritonclient` always sends along."""
        dependents = {"unload_dependents": pb.ModelRepositoryParameter(bool_param=False)}
        self.call("RepositoryModelUnload", model_name=model, parameters=dependents)

    def index(self) -> dict[str, tuple[str, str]]:
        """State and reason of every version that is known, by `MODEL/VERSION`."""
        models = self.call("RepositoryIndex").models
        return {f"{entry.name}/{entry.version}": (entry.state, entry.reason) for entry in models}

    def version(self, model: str, version: str = "") -> str:
        """The version that answers when this one is asked."""
        asked = request(model, 1.0, 1)
        asked.model_version = version
        answered: str = self.method("ModelInfer")(asked, timeout=30).model_version
        return answered

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Code and message of a call that must be refused."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError(f"it was not refused: {answer}")


def request(model: str, value: float, steps: int) -> pb.ModelInferRequest:
    x = np.full((1, steps, FEATURES), value, np.float32)
    made = pb.ModelInferRequest(model_name=model, raw_input_contents=[x.tobytes()])
    made.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return made


def open_stream(client: RawClient, requests: Iterator[pb.ModelInferRequest], **more: Any) -> Any:
    return client.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        lambda message: message.SerializeToString(),
        pb.ModelStreamInferResponse.FromString,
    )(requests, **more)
