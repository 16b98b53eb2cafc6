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
        request.inputs.add(name=name, datatype="INT64" if array.dtype == np.int64 else "FP32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    answer = client.method("ModelInfer")(request, timeout=30)
    return {
        output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(output.shape)
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def session(file: Path) -> Any:
    """The file itself, with none of our code around it."""
    import onnxruntime

    return onnxruntime.InferenceSession(str(file))
