"""Any model asked with arrays: by a client, and its file by the runtime alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protos import grpc_service_pb2 as pb
from serving.protocol.elements import bytes_of
from serving.signature import byte_strings
from serving.signature.tensors import DTYPES
from tests.support.wire import RawClient

Arrays = Mapping[str, npt.NDArray[Any]]


def infer(
    client: RawClient, model: str, inputs: Arrays, classes: Mapping[str, int] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The outputs of one request, or as many `classes` of each output that is named there."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        datatype = next(name for name, dtype in DTYPES.items() if dtype == array.dtype)
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(bytes_of(array))
    for name, count in (classes or {}).items():
        request.outputs.add(name=name).parameters["classification"].int64_param = count
    answer = client.method("ModelInfer")(request, timeout=30)
    return {
        output.name: _array(output.datatype, raw, tuple(output.shape))
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def _array(datatype: str, raw: bytes, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, DTYPES[datatype]).reshape(shape)
    made = np.empty(math.prod(shape), object)
    made[:] = byte_strings.unpack(raw, math.prod(shape))
    return made.reshape(shape)


def session(file: Path, level: str = "ORT_ENABLE_ALL") -> Any:
    """The file itself, with none of our code around it, at this level of optimisation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(str(file), options)
