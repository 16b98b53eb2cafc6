"""The requests that are sent: made once, as bytes, before anything is measured.

Shapes and datatypes come from the server's ModelMetadata; contents are random or from a file. Random numbers are fine
for the speed of an LSTM, whose work does not depend on its input, but random *tokens* must lie within the vocabulary,
which the protocol does not tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import data_files
from loadtest.data_files import Array
from loadtest.errors import UsageError
from protos import grpc_service_pb2 as pb
from serving.signature.tensors import DTYPES

DISTINCT = 16  # random requests that are made and sent in turn
DEFAULT_STEPS = 24  # what a free size behind the rows becomes unless it is said
DATATYPES = (*DTYPES, "BF16", "BYTES")


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`x:30,12` -> `{"x": (30, 12)}`, the sizes behind the rows. Raises `UsageError`."""
    shapes = {}
    for text in texts:
        name, colon, sizes = text.rpartition(":")
        parts = sizes.split(",")
        if not colon or not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise UsageError(f"{text!r} is not a shape; a shape is NAME:SIZE,SIZE without the rows, as in x:30,12")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def full_shape(
    name: str, advertised: Sequence[int], rows: int, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[int, ...]:
    """An input's sizes, rows included: as advertised, free ones filled in. Raises `UsageError` where these disagree."""
    if not advertised:
        return ()
    behind = [DEFAULT_STEPS if size == -1 else size for size in advertised[1:]]
    if shapes and name in shapes:
        asked = list(shapes[name])
        fits = len(asked) == len(behind) and all(
            size in (-1, wanted) for size, wanted in zip(advertised[1:], asked, strict=True)
        )
        if not fits:
            raise UsageError(
                f"--shape {name}:{','.join(map(str, asked))} does not fit the model: behind the rows {name} is "
                f"{list(advertised[1:])} (-1 is free)"
            )
        behind = asked
    if advertised[0] not in (-1, rows):
        raise UsageError(f"the model takes {advertised[0]} rows of {name} in a request; --rows {rows} does not fit")
    return (rows, *behind)


def random_requests(
    metadata: pb.ModelMetadataResponse,
    version: str,
    *,
    rows: int,
    shapes: Mapping[str, Sequence[int]],
    token_limit: int,
    seed: int,
    count: int,
) -> list[bytes]:
    """`count` different requests for this model, ready to send. Raises `UsageError` for what does not fit it."""
    known = [tensor.name for tensor in metadata.inputs]
    for name in shapes:
        if name not in known:
            raise UsageError(f"--shape names {name!r}; the inputs of {metadata.name!r} are {', '.join(known)}")
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        request = pb.ModelInferRequest(model_name=metadata.name, model_version=version)
        for tensor in metadata.inputs:
            shape = full_shape(tensor.name, tensor.shape, rows, shapes)
            add(request, tensor.name, tensor.datatype, random_array(tensor, shape, token_limit, generator))
        made.append(request.SerializeToString())
    return made


def requests_from_file(path: Path, metadata: pb.ModelMetadataResponse, version: str, *, rows: int) -> list[bytes]:
    """The requests that a file holds (see `data_files`), ready to send; they are sent in turn, over and over.

    Either one array for each input, by name, whose axis 0 is split into requests of `rows` rows (what is left over at
    the end is not sent); or arrays named 0, 1, 2, ..., each one row of the model's only input, each of its own length.
    Raises `UsageError` for a file that is neither or does not fit the model.
    """
    arrays = data_files.read(path)
    if all(name.isdecimal() for name in arrays):
        if len(metadata.inputs) != 1:
            names = ", ".join(tensor.name for tensor in metadata.inputs)
            raise UsageError(f"{path} holds numbered sequences, for models of one input; {metadata.name!r} has {names}")
        if rows != 1:
            raise UsageError(f"{path} holds sequences of their own lengths, one row each; leave --rows {rows} out")
        name = metadata.inputs[0].name
        slices = [{name: arrays[key][None]} for key in sorted(arrays, key=int)]
    else:
        missing = [tensor.name for tensor in metadata.inputs if tensor.name not in arrays]
        if missing:
            raise UsageError(f"{path} has no array {missing[0]!r}; it has {', '.join(arrays)}")
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or min(lengths.values()) < rows:
            raise UsageError(f"{path} needs the same number of rows in every array, at least {rows}; it has {lengths}")
        total = min(lengths.values()) // rows * rows
        slices = [
            {name: array[first : first + rows] for name, array in arrays.items()} for first in range(0, total, rows)
        ]
    datatypes = {tensor.name: tensor.datatype for tensor in metadata.inputs}
    made = []
    for tensors in slices:
        request = pb.ModelInferRequest(model_name=metadata.name, model_version=version)
        for name, array in tensors.items():
            datatype = datatypes.get(name) or _datatype_of(array.dtype, name, path)
            add(request, name, datatype, fitting(array, name, datatype, path))
        made.append(request.SerializeToString())
    return made


def add(request: pb.ModelInferRequest, name: str, datatype: str, array: Array) -> None:
    """Puts an input into a request; `array` is as `random_array` and `fitting` give it."""
    request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    request.raw_input_contents.append(_strings(array) if datatype == "BYTES" else array.tobytes())


def random_array(tensor: Any, shape: tuple[int, ...], token_limit: int, generator: np.random.Generator) -> Array:
    """Contents for an input of the metadata. Raises `UsageError` for a datatype that nobody knows."""
    datatype = tensor.datatype
    if datatype == "BYTES":
        return generator.integers(0, 10**8, shape).astype("S8")
    if datatype == "BF16":
        return generator.standard_normal(shape, np.float32).view("<u4").__rshift__(16).astype("<u2")
    if datatype not in DTYPES:
        raise UsageError(f"input {tensor.name} has datatype {datatype!r}; known are {', '.join(DATATYPES)}")
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    limit = 2 if dtype.kind == "b" else min(token_limit, np.iinfo(dtype).max)
    return generator.integers(0, limit, shape).astype(dtype)


def fitting(array: Array, name: str, datatype: str, path: Path) -> Array:
    """The array of a file as the model takes it. Raises `UsageError` where that would change its values."""
    if datatype == "BYTES" and array.dtype.kind in "SU":
        return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
    wanted = DTYPES.get(datatype)
    if wanted is None or not np.can_cast(array.dtype, wanted, "same_kind"):
        raise UsageError(f"{path}: array {name!r} is {array.dtype}, which does not go into the model's {datatype}")
    return np.ascontiguousarray(array, wanted)


def _datatype_of(dtype: np.dtype[Any], name: str, path: Path) -> str:
    for datatype, known in DTYPES.items():
        if known == dtype.newbyteorder("<"):
            return datatype
    raise UsageError(f"{path}: array {name!r} is {dtype}, which the protocol cannot carry")


def _strings(array: Array) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in array.reshape(-1).tolist())
