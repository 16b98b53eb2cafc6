"""An inference request as plain data, whatever it travelled as: made from protobuf here, from other encodings elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from protos import grpc_service_pb2 as pb
from serving.errors import InvalidRequest

SHARED_MEMORY, CLASSIFICATION = "shared_memory_region", "classification"
FEW = 256  # inputs or outputs, more than most models have

T = TypeVar("T")


class Parameter(NamedTuple):
    """A typed value; `kind` is "bool", "int64", "uint64", "double", "string", or empty where no value was set."""

    kind: str
    value: Any


@dataclasses.dataclass(slots=True)
class InferTensor:
    """An input. Its elements are `raw` (little-endian bytes), or in the typed fields `contents`, by the field's name."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    in_shared_memory: bool = False
    raw: bytes | None = None
    contents: Mapping[str, Sequence[Any]] | None = None


@dataclasses.dataclass(slots=True)
class RequestedOutput:
    """An output that is asked for; with `classification` as so many classes instead of the tensor."""

    name: str
    in_shared_memory: bool = False
    classification: Parameter | None = None


@dataclasses.dataclass(slots=True)
class InferRequest:
    """What a client asks. `raw_count` is how many raw contents came; where there are any, typed ones are not allowed."""

    model_name: str
    model_version: str
    id: str
    inputs: Sequence[InferTensor]
    outputs: Sequence[RequestedOutput] = ()
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    raw_count: int = 0


def message(payload: bytes) -> pb.ModelInferRequest:
    """The message in these bytes. Raises `InvalidRequest` if they are something else."""
    try:
        return pb.ModelInferRequest.FromString(payload)
    except DecodeError as error:
        raise InvalidRequest(f"the request is not a ModelInferRequest message: {error}") from error


def from_protobuf(payload: bytes) -> InferRequest:
    """The request in these bytes. Raises `InvalidRequest` if they are something else.

    No tensor is copied twice.
    """
    sent = message(payload)
    raw = sent.raw_input_contents

    def tensor(place: int) -> InferTensor:
        one = sent.inputs[place]
        return InferTensor(
            one.name,
            one.datatype,
            tuple(one.shape),
            SHARED_MEMORY in one.parameters,
            raw[place] if place < len(raw) else None,
            _contents(one) if not raw or one.HasField("contents") else None,
        )

    def output(place: int) -> RequestedOutput:
        one = sent.outputs[place]
        return RequestedOutput(
            one.name,
            SHARED_MEMORY in one.parameters,
            _parameter(one.parameters[CLASSIFICATION]) if CLASSIFICATION in one.parameters else None,
        )

    inputs, outputs = _made(tensor, len(sent.inputs)), _made(output, len(sent.outputs))
    return InferRequest(sent.model_name, sent.model_version, sent.id, inputs, outputs, parameters_of(sent), len(raw))


def parameters_of(sent: pb.ModelInferRequest) -> dict[str, Parameter]:
    """The parameters of the request as a whole."""
    return {name: _parameter(value) for name, value in sent.parameters.items()}


class _Later(Sequence[T]):
    """Made one by one when somebody looks: a message of 4 MB may hold 2 million inputs, of which the first is refused."""

    def __init__(self, make: Callable[[int], T], count: int) -> None:
        self._make = make
        self._places = range(count)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        return self._make(self._places[place])


def _made(make: Callable[[int], T], count: int) -> Sequence[T]:
    """At once where there are few, so that the message need not be kept."""
    return [make(place) for place in range(count)] if count <= FEW else _Later(make, count)


def id_of(payload: bytes) -> str:
    """The id of the request in these bytes; empty if they are no request."""
    try:
        return pb.ModelInferRequest.FromString(payload).id
    except DecodeError:
        return ""


def _contents(sent: pb.ModelInferRequest.InferInputTensor) -> Mapping[str, Sequence[Any]]:
    return {field.name: values for field, values in sent.contents.ListFields()}


def _parameter(sent: pb.InferParameter) -> Parameter:
    kind = sent.WhichOneof("parameter_choice")
    return Parameter(kind.removesuffix("_param"), getattr(sent, kind)) if kind else Parameter("", None)
