"""Specifications of files with a layout of their own: a value that all rows share, rows on another axis, no rows at all."""

from __future__ import annotations

from typing import Any

from serving.signature.spec import ModelSpec, StatePair
from serving.signature.tensors import TensorSpec

COMMON: dict[str, Any] = {
    "lengths": None,
    "streamable": True,
    "tolerance": 1e-5,
    "weights_sha256": "",
    "state_advertised": True,
}
SHARED = ModelSpec(
    inputs=(
        TensorSpec("x", "FP32", (-1, 3)),
        TensorSpec("state", "FP32", (-1, 2, 4), rows_axis=1),
        TensorSpec("rate", "INT64", (-1,), rows_axis=None),
    ),
    outputs=(TensorSpec("y", "FP32", (-1, 1)), TensorSpec("stateN", "FP32", (-1, 2, 4), rows_axis=1)),
    state=(StatePair("state", "stateN"),),
    **COMMON,
)
ALONE = ModelSpec(
    inputs=(TensorSpec("x", "FP32", (1, -1, 3), None), TensorSpec("gain", "FP32", (1,), None)),
    outputs=(TensorSpec("y", "FP32", (1, -1), None),),
    state=(),
    batched=False,
    **COMMON,
)
