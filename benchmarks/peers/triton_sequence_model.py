"""The reference LSTM as a model of Triton's Python backend that keeps the state of sequences, by their correlation ids.

`benchmarks/sequences.py` has it copied into Triton's repository, as `triton_model.py` beside this is. The states lie in two
arrays, of which a batch takes and leaves its rows by index: what a careful user would write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime
import triton_python_backend_utils as triton  # comes with the backend

PLACES = 1024


class TritonPythonModel:
    """What Triton calls: `initialize` once, then `execute` with at most one request of each sequence."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the model of this version, and makes room for the states."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        shapes = {state.name: state.shape[1:] for state in self.session.get_inputs() if state.name in ("h0", "c0")}
        self.states = {name: np.zeros((PLACES, *shape), np.float32) for name, shape in shapes.items()}
        self.free = list(range(PLACES))
        self.places: dict[int, int] = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request; a slot of the direct strategy that has nothing to do is one that is not READY."""
        parts, rows, ends = [], [], []
        answers: list[Any] = [None] * len(requests)
        for number, request in enumerate(requests):
            x, start, end, ready, id = (
                triton.get_input_tensor_by_name(request, name).as_numpy()
                for name in ("x", "START", "END", "READY", "CORRID")
            )
            if not ready[0, 0]:
                answers[number] = triton.InferenceResponse([triton.Tensor("y", np.zeros((1, 1), np.float32))])
                continue
            whose = int(id[0, 0])
            if start[0, 0]:
                place = self.places.pop(whose, None)
                self.places[whose] = place = self.free.pop() if place is None else place
                for state in self.states.values():
                    state[place] = 0
            if end[0, 0]:
                ends.append(whose)
            parts.append(x)
            rows.append((number, self.places[whose]))
        if parts:
            places = [place for _, place in rows]
            x = np.concatenate(parts) if len(parts) > 1 else parts[0]
            feeds = {name: state[places] for name, state in self.states.items()}
            lengths = np.full(len(x), x.shape[1], np.int64)
            y, hn, cn = self.session.run(["y", "hn", "cn"], {"x": x, "lengths": lengths, **feeds})
            self.states["h0"][places], self.states["c0"][places] = hn, cn
            for (number, _), answer in zip(rows, np.split(y, len(rows)), strict=True):
                answers[number] = triton.InferenceResponse([triton.Tensor("y", answer)])
        for whose in ends:
            self.free.append(self.places.pop(whose))
        return answers
