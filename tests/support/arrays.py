"""Any model asked with arrays: by a client, and its file by the runtime alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protos import grpc_service_pb2 as pb
from serving.signature.tensors import DTYPES
from tests.support.wire import RawClient

Arrays = Mapping[str, npt.NDArray[Any]]


def infer(client: RawClient, model: str, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
    request = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        datatype = next(known for known, dtype in DTYPES.items() if dtype == array.dtype)
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    answer = client.method("ModelInfer")(request, timeout=30)
    return {
        output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(output.shape)
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def session(file: Path, level: str = "ORT_ENABLE_ALL") -> Any:
    """The file itself, with none of our code around it, at this level of optimisation."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(str(file), options)
