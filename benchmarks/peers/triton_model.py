"""The reference LSTM as a model of Triton's Python backend: ONNX Runtime on one thread, batches as Triton forms them.

`triton.py` copies this file into Triton's repository, beside the very `model.onnx` that `lstm-serve` serves.
Triton hands over a list of requests and leaves it to this file to gather their rows into one call.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime
import triton_python_backend_utils as triton  # comes with the backend


class TritonPythonModel:
    """What Triton calls: `initialize` once, then `execute` with what has gathered in its queue."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the model of this version."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.states = {state.name: state.shape[1:] for state in self.session.get_inputs() if state.name in ("h0", "c0")}

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request. The dynamic batcher gathers requests of equal shape only."""
        parts = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        x = np.concatenate(parts) if len(parts) > 1 else parts[0]
        rows, steps = x.shape[:2]
        feeds = {name: np.zeros((rows, *shape), np.float32) for name, shape in self.states.items()}
        (y,) = self.session.run(["y"], {"x": x, "lengths": np.full(rows, steps, np.int64), **feeds})
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return [triton.InferenceResponse([triton.Tensor("y", answer)]) for answer in np.split(y, ends)]
