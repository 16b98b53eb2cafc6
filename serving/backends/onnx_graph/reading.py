"""An ONNX file as a graph: read with our own declaration of the format, so that a server needs no further package for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from protos import onnx_graph_pb2 as pb
from serving.backends.base import SMALL, distinct
from serving.errors import RepositoryError

LARGEST_FILE = 2**29  # bytes; what is larger is tried by running alone

# `TensorProto.DataType` (onnx.proto) of what may be a constant of interest.
_DTYPES: dict[int, tuple[str, str]] = {
    1: ("<f4", "float_data"),
    6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"),
    9: ("?", "int32_data"),
    10: ("<f2", "int32_data"),
    11: ("<f8", "double_data"),
}
_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_CASTS = ("Cast", "CastLike", "Identity")
_ELSEWHERE = 1  # `TensorProto.DataLocation` EXTERNAL


def read(artifact: Path) -> pb.ModelProto | None:
    """The file's graph; None where it is too large to be read twice. Raises `RepositoryError` when it is no ONNX file."""
    if artifact.stat().st_size > LARGEST_FILE:
        return None
    model = pb.ModelProto()
    try:
        model.ParseFromString(artifact.read_bytes())
    except DecodeError as error:
        raise RepositoryError(f"{artifact} cannot be read as ONNX: {error}") from error
    return model


def opset(model: pb.ModelProto) -> int:
    """The version of ONNX's own operators."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def value(tensor: pb.TensorProto) -> npt.NDArray[Any] | None:
    """The numbers of a small constant; None for a larger one, for strings, and for what lies in another file."""
    size = int(np.prod(tensor.dims)) if tensor.dims else 1
    if tensor.data_type not in _DTYPES or size > SMALL or tensor.data_location == _ELSEWHERE:
        return None
    dtype, field = _DTYPES[tensor.data_type]
    if tensor.raw_data:
        flat = np.frombuffer(tensor.raw_data, dtype)
    elif tensor.data_type == 10:  # halves are kept as the bits of whole numbers
        flat = np.array(tensor.int32_data, np.uint16).view(dtype)
    else:
        flat = np.array(getattr(tensor, field), dtype)
    return flat.reshape(tuple(tensor.dims)) if flat.size == size else None


def constants(model: pb.ModelProto) -> tuple[list[float], list[str]]:
    """Numbers and texts that stand in the graph by themselves, each once; first the numbers that something is compared with."""
    arrays: list[npt.NDArray[Any]] = []
    compared: list[npt.NDArray[Any]] = []
    texts: dict[str, None] = {}
    beside = _compared(model.graph)
    for name, tensor in _tensors(model.graph):
        found = value(tensor)
        if found is not None:
            (compared if name in beside else arrays).append(found)
        texts |= dict.fromkeys(text.decode(errors="replace") for text in tensor.string_data[:SMALL])
    for node in _nodes(model.graph):
        for attribute in node.attribute:
            if attribute.HasField("f"):
                arrays.append(np.array(attribute.f))
            if attribute.floats:
                arrays.append(np.array(attribute.floats))
            texts |= dict.fromkeys(text.decode(errors="replace") for text in attribute.strings[:SMALL])
    return list(dict.fromkeys([*distinct(compared), *distinct(arrays)])), list(texts)


def operators(model: pb.ModelProto) -> set[str]:
    """The names of all operators in it, those of another domain than ONNX's own behind the domain and a point."""
    own = ("", "ai.onnx")
    return {node.op_type if node.domain in own else f"{node.domain}.{node.op_type}" for node in _nodes(model.graph)}


def _nodes(graph: pb.GraphProto) -> Iterator[pb.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _nodes(inner)


def _compared(graph: pb.GraphProto) -> set[str]:
    """The names of what is compared, also when it is cast first."""
    nodes = list(_nodes(graph))
    names = {name for node in nodes if node.op_type in _COMPARISONS for name in node.input}
    return names | {name for node in nodes if node.op_type in _CASTS and names & {*node.output} for name in node.input}


def _tensors(graph: pb.GraphProto) -> Iterator[tuple[str, pb.TensorProto]]:
    """Every tensor that the graph holds, by the name that others know it by."""
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in _nodes(graph):
        for attribute in node.attribute:
            name = node.output[0] if node.op_type == "Constant" else ""
            if attribute.HasField("t"):
                yield name, attribute.t
            yield from ((name, tensor) for tensor in attribute.tensors)
            if attribute.HasField("g"):
                yield from ((tensor.name, tensor) for tensor in attribute.g.initializer)
