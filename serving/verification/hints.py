"""What a person may say about a file that someone else has exported, and the error where something is left to say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.errors import RepositoryError
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors

Shape = tuple[int, ...]


class Unclear(RepositoryError):
    """The file leaves something open that must not be guessed; the message names what settles it."""


class NaNAlone(Unclear):
    """An output holds NaN whatever is asked, which no description mends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hints:
    """What a person says about a file. All of it is proved, none of it believed.

    `shapes` replaces what the file states of an input, in its own layout, -1 where free. `values` are what an input holds
    in every trial, texts for strings. `rows` is the axis of the rows of an input, None for one that all rows share. `state`
    pairs inputs with outputs, and empty says that there is none; None leaves it to the names. `samples` are inputs as they
    are in use, in the file's own layout.
    """

    shapes: Mapping[str, Shape] = dataclasses.field(default_factory=dict)
    values: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    rows: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    state: Mapping[str, str] | None = None
    samples: Sequence[Tensors] = ()


def value_for(value: float | str, dtype: np.dtype[Any]) -> float | bytes:
    """What a person has said of an input, as the input has it; strings are bytes. Raises `ValueError`."""
    if dtype.kind != "O":
        return float(value)
    if isinstance(value, str):
        return value.encode()
    return (str(int(value)) if float(value).is_integer() else repr(value)).encode()


def check(stated: ModelSpec, hints: Hints) -> None:
    inputs = {tensor.name: tensor for tensor in stated.inputs}
    outputs = {tensor.name for tensor in stated.outputs}
    for name in (*hints.shapes, *hints.values, *hints.rows, *(hints.state or ())):
        if name not in inputs:
            raise RepositoryError(f"there is no input {name!r}; the file has {', '.join(inputs)}")
    for name in (hints.state or {}).values():
        if name not in outputs:
            raise RepositoryError(f"there is no output {name!r}; the file has {', '.join(sorted(outputs))}")
    for name, value in hints.values.items():
        try:
            value_for(value, inputs[name].dtype)
        except ValueError as error:
            raise RepositoryError(
                f"{name} is {inputs[name].datatype}, and {value!r} is no number; write --value {name}=NUMBER"
            ) from error
    for name, shape in hints.shapes.items():
        known = inputs[name].file_shape
        if len(shape) != len(known) or any(k not in (-1, s) for s, k in zip(shape, known, strict=True)):
            raise RepositoryError(f"the shape {list(shape)} of {name} does not fit the file's, {list(known)}")
    for name, axis in hints.rows.items():
        if axis is not None and not 0 <= axis < len(inputs[name].file_shape):
            raise RepositoryError(f"{name} has no axis {axis}; its shape is {list(inputs[name].file_shape)}")
