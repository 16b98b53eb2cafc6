"""The bytes of answers, the description of each kind written once: of a usual answer only id and elements are new.

What is written here is what protobuf writes for the same `ModelInferResponse`, fields in the order of their numbers
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protos import grpc_service_pb2 as pb
from serving.protocol import codec
from serving.protocol.elements import bytes_of
from serving.protocol.sequence_parameters import EPOCH
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors

MOST_KINDS = 1024  # of shapes of answers that are kept

_FIELDS = pb.ModelInferResponse.DESCRIPTOR.fields_by_name
_LENGTH_DELIMITED = 2
_ID, _RAW = (bytes([_FIELDS[name].number << 3 | _LENGTH_DELIMITED]) for name in ("id", "raw_output_contents"))


class Answers:
    """The answers of one version of a model. Called from any thread."""

    def __init__(self, model: str, version: str, spec: ModelSpec, labels: Mapping[str, Sequence[str]]) -> None:
        self._model = model
        self._version = version
        self._spec = spec
        self._labels = labels
        self._head = pb.ModelInferResponse(model_name=model, model_version=version).SerializeToString()
        self._outputs: dict[tuple[tuple[str, tuple[int, ...]], ...], bytes] = {}
        # A usual output is sent as it was computed.
        self._plain = spec.batched and all(
            tensor.shown is None and tensor.datatype != "BYTES" for tensor in spec.outputs
        )

    def encode(self, id: str, outputs: Tensors, classes: Mapping[str, int], epoch: int = 0) -> bytes:
        """The same bytes as those of `codec.encode`, which raises what this raises."""
        if classes or not self._plain:
            return codec.encode(id, self._model, self._version, self._spec, outputs, classes, self._labels, epoch)
        parts = [self._head]
        if id:
            encoded = id.encode()
            parts += (_ID, varint(len(encoded)), encoded)
        if epoch:
            parts.append(_in_epoch(epoch))
        parts.append(self._described(outputs))
        for name, array in outputs.items():
            content = bytes_of(array.astype(self._spec.outputs_by_name[name].dtype, copy=False))
            parts += (_RAW, varint(len(content)), content)
        return b"".join(parts)

    def _described(self, outputs: Tensors) -> bytes:
        kind = tuple([(name, array.shape) for name, array in outputs.items()])
        described = self._outputs.get(kind)
        if described is None:
            message = pb.ModelInferResponse()
            for name, shape in kind:
                message.outputs.add(name=name, datatype=self._spec.outputs_by_name[name].datatype, shape=shape)
            described = message.SerializeToString()
            if len(self._outputs) < MOST_KINDS:
                self._outputs[kind] = described
        return described


def _in_epoch(epoch: int) -> bytes:
    """The parameter by which the epoch of a sequence is told."""
    message = pb.ModelInferResponse()
    message.parameters[EPOCH].int64_param = epoch
    return message.SerializeToString()


def varint(number: int) -> bytes:
    """A number as protobuf writes it: seven bits in each byte, the lowest first; the last has its highest bit clear."""
    if number < 128:
        return _SMALL[number]
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL = [bytes([number]) for number in range(128)]
