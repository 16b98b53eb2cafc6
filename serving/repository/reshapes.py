"""Shapes that the operator shows clients instead of the file's: `dims` with `reshape`, and one element for a scalar.

    input { name: "data" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] reshape { shape: [ 1, 3, 224, 224 ] } }

`dims` is what travels, `reshape` what is computed with; the rows stand in neither. Free sizes keep their order, and as many
elements stand between them in both, as in Triton.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from protos import model_config_pb2 as pb
from serving.errors import ModelConfigError
from serving.signature.spec import ModelSpec
from serving.signature.tensors import TensorSpec


def shown(spec: ModelSpec, written: pb.ModelConfig) -> ModelSpec:
    """The specification with the shapes that `written` shows. Raises `ModelConfigError` for a reshape that does not fit."""
    where = f"config.pbtxt of model '{written.name}'"
    listed = {("input", tensor.name): tensor for tensor in written.input}
    listed |= {("output", tensor.name): tensor for tensor in written.output}  # type: ignore[misc]

    def side(kind: str, tensors: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            _shown(tensor, listed[kind, tensor.name], f"{where}: {kind} '{tensor.name}'")
            if (kind, tensor.name) in listed
            else tensor
            for tensor in tensors
        )

    return dataclasses.replace(spec, inputs=side("input", spec.inputs), outputs=side("output", spec.outputs))


def computed(tensor: pb.ModelInput | pb.ModelOutput) -> tuple[int, ...]:
    """What the file itself is to take or give, the rows left out."""
    return tuple(tensor.reshape.shape) if tensor.HasField("reshape") else tuple(tensor.dims)


def ones(dims: Sequence[int]) -> bool:
    """Whether these dims hold one element, so that they may stand for a scalar."""
    return bool(dims) and all(size == 1 for size in dims)


def _shown(tensor: TensorSpec, written: pb.ModelInput | pb.ModelOutput, where: str) -> TensorSpec:
    dims, own = tuple(written.dims), tensor.shape[1:]
    if not own and ones(dims) and ones((1, *computed(written))):
        # All rows share a scalar, or a model without rows has one: that is shown as one element by itself.
        return tensor if tensor.rows_axis is None and len(dims) == 1 else _replaced(tensor, dims)
    if not written.HasField("reshape"):
        return tensor
    target = computed(written)
    if any(size < 1 and size != -1 for size in (*dims, *target)):
        raise ModelConfigError(f"{where} has a size in dims or reshape that is neither positive nor -1")
    if target != own:
        raise ModelConfigError(
            f"{where} is reshaped to {list(target)}; the model's own dims are {list(own)} (the rows are left out)"
        )
    if _between_free(dims) != _between_free(target):
        raise ModelConfigError(
            f"{where} has another number of elements in dims {list(dims)} than in reshape {list(target)}: free sizes stand in "
            "the same order in both, and between two of them there are as many elements"
        )
    return tensor if dims == own else _replaced(tensor, dims)


def _replaced(tensor: TensorSpec, dims: tuple[int, ...]) -> TensorSpec:
    return dataclasses.replace(tensor, shown=(tensor.shape[0], *dims))


def _between_free(dims: Sequence[int]) -> list[int]:
    """How many elements stand before, between and behind the free sizes."""
    parts: list[list[int]] = [[]]
    for size in dims:
        if size == -1:
            parts.append([])
        else:
            parts[-1].append(size)
    return [math.prod(part) for part in parts]
