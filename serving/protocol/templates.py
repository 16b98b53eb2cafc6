"""Requests that are alike byte for byte, but for their ids and elements: the usual client sends nothing else.

Such a request need not be parsed: after its id it has the bytes of one that was parsed, checked and found right, up to the
elements of its inputs, which lie where they lay in that one. That holds where a message was written as protobuf writes it, fields
in the order of their numbers and each once (https://protobuf.dev/programming-guides/encoding/), of which nothing else is kept.

Whatever depends on the elements is checked every time. Templates live with the version that they were made for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from protos import grpc_service_pb2 as pb
from serving.batching.pending import Turn
from serving.protocol import codec
from serving.protocol.answers import varint
from serving.protocol.checks import Limits
from serving.protocol.codec import Decoded
from serving.protocol.wire_parameters import parameters_at
from serving.signature.spec import ModelSpec

MAX_BYTES = 256 * 1024  # what the templates of a version may take
LONGEST = 8 * 1024  # bytes of a description that is kept
TEMPLATE_BYTES = 1024  # about what one takes beside it
SELDOM = 16
ONE_BYTE = 128  # lengths below this are one byte on the wire

_NAME, _VERSION, _ID, _RAW = (
    pb.ModelInferRequest.DESCRIPTOR.fields_by_name[name].number << 3 | 2
    for name in ("model_name", "model_version", "id", "raw_input_contents")
)


class Head(NamedTuple):
    """How a request begins, and where what comes after its id does."""

    model_name: str
    model_version: str
    id: str
    end: int


def head_of(payload: bytes) -> Head | None:
    """The beginning of a request as protobuf writes it; None of anything else, which is to be parsed."""
    try:
        if payload[0] != _NAME or payload[1] >= ONE_BYTE:
            return None
        end = 2 + payload[1]
        name, version, id = payload[2:end].decode(), "", ""
        if payload[end] == _VERSION:
            length = payload[end + 1]
            if length >= ONE_BYTE:
                return None
            begin, end = end + 2, end + 2 + length
            version = payload[begin:end].decode()
        if payload[end] == _ID:
            length = payload[end + 1]
            if length >= ONE_BYTE:
                return None
            begin, end = end + 2, end + 2 + length
            id = payload[begin:end].decode()
    except (IndexError, UnicodeDecodeError):
        return None
    return Head(name, version, id, end)


class Templates:
    """The templates of one version. Called from any thread; `max_bytes` of 0 keeps none."""

    def __init__(self, spec: ModelSpec, limits: Limits, max_bytes: int = MAX_BYTES) -> None:
        self._spec = spec
        self._limits = limits
        self._templates: dict[int, Template] = {}  # by the bytes after the id; of two alike in that the newer is kept
        self._lock = threading.Lock()  # guards what follows, and held to write `_templates`
        self._bytes_left = max_bytes
        self._missed = 0

    def find(self, payload: bytes, end: int) -> Template | None:
        """The template of a request whose head ends there."""
        template = self._templates.get(len(payload) - end)
        return template if template and template.fits(payload, end) else None

    def keep(self, payload: bytes, decoded: Decoded) -> None:
        """Makes a template of a request that was right, if others may be alike.

        A client no two of whose requests are alike would make one of each; so where something has to make room only now and
        then one is made.
        """
        head = head_of(payload)
        if head is None:
            return
        begin = head.end
        if self._limits.stateful:  # steps differ in their parameters, which are read by themselves
            written = parameters_at(payload, begin)
            if written is None:
                return
            head = head._replace(end=written[1])
        self._missed += 1
        crowded = len(payload) - head.end in self._templates or self._bytes_left < TEMPLATE_BYTES + LONGEST
        if crowded and self._missed % SELDOM:
            return
        template = _made(payload, head, begin, decoded, self._spec, self._limits)
        if template is None:
            return
        with self._lock:
            self._forget(template.length)
            while self._templates and template.cost > self._bytes_left:
                self._forget(next(iter(self._templates)))
            if template.cost <= self._bytes_left:
                self._templates[template.length] = template
                self._bytes_left -= template.cost

    def _forget(self, length: int) -> None:
        template = self._templates.pop(length, None)
        if template:
            self._bytes_left += template.cost


class Place(NamedTuple):
    """An input: its name, datatype, how many elements it has, where they begin after the head, and their shape."""

    name: str
    dtype: np.dtype[Any]
    elements: int
    begin: int
    shape: tuple[int, ...]


class Template:
    """What all requests of these bytes have in common.

    `description` begins after the head and ends before the first elements; `length` is that of everything after the head;
    `separators` stand, where they say, before the elements of the other inputs. `decoded` has everything but the inputs.
    """

    def __init__(
        self,
        description: bytes,
        length: int,
        inputs: Sequence[Place],
        separators: Sequence[tuple[int, bytes]],
        decoded: Decoded,
        spec: ModelSpec,
        limits: Limits,
        model: str,
    ) -> None:
        self.description = description
        self.length = length
        self.cost = len(description) + TEMPLATE_BYTES
        self._inputs = inputs
        self._separators = separators
        self._decoded = decoded
        self._spec = spec
        self._limits = limits
        self._model = model

    def fits(self, payload: bytes, end: int) -> bool:
        """Whether it is that of the request with this payload, as long as its own, whose head ends there."""
        if not payload.startswith(self.description, end):
            return False
        return all(payload.startswith(between, end + place) for place, between in self._separators)

    def decode(self, payload: bytes, end: int, turn: Turn | None = None) -> Decoded:
        """The request in this payload, which it fits; with a `turn` of its own, where its parameters were read by themselves.

        Raises what `codec.check_values` raises.
        """
        arrays = {
            name: np.frombuffer(payload, dtype, elements, end + place).reshape(shape)
            for name, dtype, elements, place, shape in self._inputs
        }
        alike = self._decoded
        codec.check_values(arrays, alike.steps, self._spec, self._limits, self._model)
        asked = alike.turn if turn is None else turn
        return Decoded(arrays, alike.rows, alike.steps, alike.outputs, alike.classes, alike.key, asked)


def _made(payload: bytes, head: Head, begin: int, decoded: Decoded, spec: ModelSpec, limits: Limits) -> Template | None:
    """What is like this request; what lies between `begin` and the end of its head, its parameters, may be otherwise."""
    arrays = list(decoded.inputs.items())
    size = sum(array.nbytes for _, array in arrays)
    if not size or len(payload) - size > LONGEST:
        return None
    sent = pb.ModelInferRequest.FromString(payload)
    sent.DiscardUnknownFields()  # which are written behind the elements, where they would be taken for some
    if begin < head.end:
        sent.ClearField("parameters")
    alike = payload[:begin] + payload[head.end :]
    in_order = [one.name for one in sent.inputs] == [name for name, _ in arrays]
    if not in_order or len(sent.raw_input_contents) != len(arrays) or sent.SerializeToString() != alike:
        return None
    # The elements stand at the end, those of each input behind their own tag and length.
    inputs: list[Place] = []
    separators: list[tuple[int, bytes]] = []
    at = len(payload) - head.end
    for name, array in reversed(arrays):
        separator = bytes([_RAW]) + varint(array.nbytes)
        at -= array.nbytes
        inputs.append(Place(name, array.dtype, array.size, at, array.shape))
        at -= len(separator)
        separators.append((at, separator))
    bare = Decoded({}, decoded.rows, decoded.steps, decoded.outputs, decoded.classes, decoded.key, decoded.turn)
    first, separator = separators.pop()
    description = payload[head.end : head.end + first + len(separator)]
    return Template(description, len(payload) - head.end, inputs[::-1], separators, bare, spec, limits, head.model_name)
