"""The signature that every exported file has: what differs from network to network is sizes and one datatype."""

from __future__ import annotations

from typing import Any

import pytest

from export import canonical
from models.config import LSTMConfig

FREE = -1


@pytest.mark.parametrize(
    ("fields", "x", "y", "state"),
    [
        ({"features": 12, "outputs": 9}, ("FP32", (FREE, FREE, 12)), (FREE, 9), (FREE, 1, 5)),
        ({"features": 1, "head": "values"}, ("FP32", (FREE, FREE, 1)), (FREE, 1), (FREE, 1, 5)),
        (
            {"features": 1, "head": "values_per_step", "outputs": 2, "layers": 2, "bidirectional": True},
            ("FP32", (FREE, FREE, 1)),
            (FREE, FREE, 2),
            (FREE, 4, 5),
        ),
        (
            {"input": "tokens", "vocabulary": 7, "embedding": 3, "outputs": 2, "layers": 3},
            ("INT64", (FREE, FREE)),
            (FREE, 2),
            (FREE, 3, 5),
        ),
    ],
)
def test_sizes_follow_from_the_network(
    fields: dict[str, Any], x: tuple[str, tuple[int, ...]], y: tuple[int, ...], state: tuple[int, ...]
) -> None:
    config = LSTMConfig(hidden=5, **fields)
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in canonical.inputs(config)] == [
        ("x", *x),
        ("lengths", "INT64", (FREE,)),
        ("h0", "FP32", state),
        ("c0", "FP32", state),
    ]
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in canonical.outputs(config)] == [
        ("y", "FP32", y),
        ("hn", "FP32", state),
        ("cn", "FP32", state),
    ]


@pytest.mark.parametrize(
    ("head", "axes"), [("classification", {"x": 1}), ("values", {"x": 1}), ("values_per_step", {"x": 1, "y": 1})]
)
def test_steps_are_axis_1_of_what_has_them(head: Any, axes: dict[str, int]) -> None:
    config = LSTMConfig(features=3, hidden=5, head=head, outputs=2)
    tensors = (*canonical.inputs(config), *canonical.outputs(config))
    assert {tensor.name: tensor.steps_axis for tensor in tensors if tensor.steps_axis is not None} == axes
