"""The elements of a tensor: from the bytes or the typed fields of a request into an array, and into an answer's bytes.

Arrays are views of the request's bytes; nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidInput, InvalidRequest
from serving.protocol.request import InferRequest, InferTensor
from serving.signature import byte_strings
from serving.signature.spec import TensorSpec

# The field of `contents` that holds each datatype; FP16 and BF16 have none and travel raw only.
_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def elements(sent: InferTensor, request: InferRequest, tensor: TensorSpec, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The elements of an input, from the one of the two encodings that the request uses. Raises `InvalidRequest`."""
    model = request.model_name
    if not request.raw_count:
        return _from_contents(sent, tensor, shape, model)
    if sent.contents is not None:
        raise InvalidRequest(
            f"contents field must not be specified when using raw_input_contents for '{sent.name}' for model '{model}'"
        )
    if sent.raw is None:
        raise _no_data(sent.name, model)
    return _from_raw(sent.raw, tensor, shape, model)


def _from_raw(raw: bytes, tensor: TensorSpec, shape: tuple[int, ...], model: str) -> npt.NDArray[Any]:
    if tensor.datatype == "BYTES":
        try:
            return _strings(byte_strings.unpack(raw, math.prod(shape)), shape)
        except ValueError as error:
            raise InvalidInput(f"input '{tensor.name}' for model '{model}': {error}") from error
    expected = math.prod(shape) * tensor.dtype.itemsize
    if len(raw) != expected:
        raise InvalidInput(
            f"input byte size mismatch for input '{tensor.name}' for model '{model}'. Expected {expected}, "
            f"got {len(raw)}"
        )
    return np.frombuffer(raw, tensor.dtype).reshape(shape)


def _from_contents(sent: InferTensor, tensor: TensorSpec, shape: tuple[int, ...], model: str) -> npt.NDArray[Any]:
    used = list(sent.contents or ())
    if not used:
        raise _no_data(sent.name, model)
    field = _TYPED_FIELDS.get(tensor.datatype)
    if field is None or used != [field]:
        raise InvalidInput(
            f"unexpected explicit tensor data for input tensor '{sent.name}' for model '{model}': {', '.join(used)}; "
            f"{tensor.datatype} travels in {field or 'raw_input_contents only'}"
        )
    values = (sent.contents or {})[field]
    if len(values) != math.prod(shape):
        raise InvalidInput(
            f"input byte size mismatch for input '{sent.name}' for model '{model}'. "
            f"Expected {math.prod(shape)} elements, got {len(values)}"
        )
    if tensor.datatype == "BYTES":
        return _strings(values, shape)
    if tensor.dtype.kind in "iu":  # NumPy 1 wraps what does not fit
        bounds = np.iinfo(tensor.dtype)
        outside = next((value for value in values if not bounds.min <= value <= bounds.max), None)
        if outside is not None:
            raise InvalidInput(
                f"input '{sent.name}' for model '{model}' holds {outside}, which is outside the range of {tensor.datatype}"
            )
    return np.array(values, tensor.dtype).reshape(shape)


def _strings(elements: Sequence[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _no_data(name: str, model: str) -> InvalidInput:
    return InvalidInput(f"unable to find data for input tensor '{name}' for model '{model}' in request.")


def bytes_of(array: npt.NDArray[Any]) -> bytes:
    """The elements as they travel."""
    return byte_strings.pack(np.asarray(array).flat) if array.dtype.kind == "O" else array.tobytes()
