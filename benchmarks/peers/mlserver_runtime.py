"""The reference LSTM as a runtime of MLServer: ONNX Runtime on one thread, batches as MLServer forms them.

`mlserver.py` copies this file beside the very `model.onnx` that `lstm-serve` serves. MLServer hands over one request that
holds the rows of all that it has gathered, and divides the answer itself.
"""

from __future__ import annotations

import os

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class ReferenceRuntime(MLModel):
    """What MLServer calls: `load` once, then `predict` for each batch, in its event loop."""

    async def load(self) -> bool:
        """Loads the model."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
        self.states = {state.name: state.shape[1:] for state in self.session.get_inputs() if state.name in ("h0", "c0")}
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One answer for all rows."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        rows, steps = x.shape[:2]
        feeds = {name: np.zeros((rows, *shape), np.float32) for name, shape in self.states.items()}
        (y,) = self.session.run(["y"], {"x": x, "lengths": np.full(rows, steps, np.int64), **feeds})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])
