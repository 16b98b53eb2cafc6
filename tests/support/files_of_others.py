"""Functions that stand for a file that someone else has exported, and what is found out about one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.verification.hints import Hints
from serving.verification.inspection import Findings, inspect, unproved
from serving.verification.trials import Run

Shapes = Mapping[str, tuple[int, ...]]


def stated(inputs: Shapes, outputs: Shapes, datatypes: Mapping[str, str] | None = None) -> ModelSpec:
    """What the file says of itself; FP32 unless `datatypes` says otherwise."""
    kinds = datatypes or {}
    return unproved(*({n: (kinds.get(n, "FP32"), s) for n, s in side.items()} for side in (inputs, outputs)))


def running_sum(steps: int) -> Run:
    """A recurrent function along the axis of the steps of `x`, from the state `h` `[1, rows, 4]` if there is one."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x = inputs["x"]
        sums = np.cumsum(x, axis=steps)
        answers = {"y": sums}
        if "h" in inputs:
            last = np.take(sums, -1, axis=steps)  # [rows, 4]
            answers = {"y": sums + np.expand_dims(inputs["h"][0], steps), "hn": inputs["h"] + last[None]}
        return {name: answers[name] for name in outputs}

    return run


def found(spec: ModelSpec, run: Run, **said: object) -> Findings:
    """What holds of it, `said` being the hints of a person."""
    return inspect(spec, run, Hints(**said))  # type: ignore[arg-type]
