"""What sequences send: one piece of a series of steps after the other, made as bytes before anything is measured.

A message lacks no more than what names its sequence: the parameters, which are put between its bytes and those that name the
model, since joining the bytes of two protobuf messages merges them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from loadtest import data_files, inputs
from loadtest.data_files import Array
from loadtest.errors import UsageError
from protos import grpc_service_pb2 as pb

ID, START, END = "sequence_id", "sequence_start", "sequence_end"
STEP, NONCE, EPOCH = "sequence_step", "sequence_nonce", "sequence_epoch"


class Tensor(NamedTuple):
    """An input of one message; its array has the rows in front, of which there is one, and maybe an axis of steps."""

    name: str
    datatype: str
    array: Array
    steps_axis: int | None = None


Message = Sequence[Tensor]
TensorMetadata = pb.ModelMetadataResponse.TensorMetadata
Axes = Mapping[str, int | None]  # by input, which axis its steps are on


@dataclasses.dataclass(frozen=True)
class Series:
    """What one sequence sends, in order: `messages`, and `sent`, the same as bytes; the last asks for the state too."""

    messages: Sequence[Message]
    sent: Sequence[bytes]


def series_of(messages: Sequence[Message], outputs: Sequence[str] = ()) -> Series:
    """Messages made ready to send; the last asks for these outputs, or for what the server gives by itself."""
    last = len(messages) - 1
    return Series(messages, [encoded(made, outputs if number == last else ()) for number, made in enumerate(messages)])


def encoded(message: Message, outputs: Sequence[str] = ()) -> bytes:
    """The part of a ModelInferRequest that holds the tensors."""
    request = pb.ModelInferRequest()
    for tensor in message:
        inputs.add(request, tensor.name, tensor.datatype, tensor.array)
    for name in outputs:
        request.outputs.add(name=name)
    return request.SerializeToString()


def parameter(name: str, value: bool | int | str) -> bytes:
    """The part of a ModelInferRequest that holds one parameter."""
    made = pb.ModelInferRequest()
    if isinstance(value, bool):
        made.parameters[name].bool_param = value
    elif isinstance(value, int):
        made.parameters[name].int64_param = value
    else:
        made.parameters[name].string_param = value
    return made.SerializeToString()


def random_messages(
    tensors: Sequence[TensorMetadata],
    *,
    steps: int,
    step_size: int,
    shapes: Mapping[str, Sequence[int]],
    token_limit: int,
    seed: int,
    count: int,
) -> list[Sequence[Message]]:
    """`count` different series of `steps` messages of random values, `step_size` time steps each.

    Raises `UsageError` for what does not fit the model.
    """
    axes = _steps_axes(tensors, step_size)
    for name in shapes:
        if name not in axes:
            raise UsageError(f"--shape names {name!r}; the inputs of a step are {', '.join(axes)}")
    generator = np.random.default_rng(seed)
    made: list[Sequence[Message]] = []
    for _ in range(count):
        arrays = {}
        for tensor in tensors:
            shape = list(inputs.full_shape(tensor.name, tensor.shape, 1, shapes))
            axis = axes[tensor.name]
            if axis is not None:
                shape[axis] = steps * step_size
            elif _timed(axes) is None:
                shape.insert(0, steps)  # a message has no steps: each holds other values
            arrays[tensor.name] = inputs.random_array(tensor, tuple(shape), token_limit, generator)
        made.append(_cut(tensors, arrays, axes, steps, step_size))
    return made


def messages_from_file(
    path: Path, tensors: Sequence[TensorMetadata], *, steps: int | None, step_size: int
) -> list[Sequence[Message]]:
    """The series that a file holds (see `data_files`), at most `steps` messages of each, `step_size` time steps a message.

    Either arrays named 0, 1, 2, ..., each one series of the model's only input; or one array for each input, by name: then each
    row is a series, or, where no input has an axis of steps, the rows are the messages of one long series, which is cut every
    `steps`. Raises `UsageError` for a file that is neither or does not fit the model.
    """
    axes = _steps_axes(tensors, step_size)
    made: list[Sequence[Message]] = []
    for name, series in _series_in(path, axes, steps):
        fitted = {}
        for tensor in tensors:
            array = fitted[tensor.name] = inputs.fitting(series[tensor.name], tensor.name, tensor.datatype, path)
            if array.ndim != len(tensor.shape) + (_timed(axes) is None):
                raise UsageError(
                    f"{path}: array {name or tensor.name!r} makes messages of {array.ndim - (_timed(axes) is None)} axes, the "
                    f"rows counted; the model's {tensor.name} has {list(tensor.shape)}"
                )
        there = _messages_in(fitted, axes, step_size)
        if not there:
            raise UsageError(f"{path}: series {name} has no step")
        made.append(_cut(tensors, fitted, axes, min(steps or there, there), step_size))
    return made


def _series_in(path: Path, axes: Axes, steps: int | None) -> list[tuple[str, dict[str, Array]]]:
    """The series of a file, by what they are called there: along the steps, or the messages in front of the rows."""
    arrays, timed = data_files.read(path), _timed(axes) is not None
    if all(name.isdecimal() for name in arrays):
        if len(axes) != 1:
            raise UsageError(
                f"{path} holds numbered sequences, for models of one input; a step of this one has {', '.join(axes)}"
            )
        (name,) = axes
        return [
            (key, {name: arrays[key][None] if timed else arrays[key][:, None]})
            for key in sorted(arrays, key=int)
            if arrays[key].ndim
        ]
    if missing := [name for name in axes if name not in arrays]:
        raise UsageError(f"{path} has no array {missing[0]!r}; it has {', '.join(arrays)}")
    sizes = {name: len(arrays[name]) if arrays[name].ndim else 0 for name in axes}
    if len(set(sizes.values())) != 1 or not min(sizes.values()):
        raise UsageError(f"{path} needs the same number of rows in every array, at least one; it has {sizes}")
    rows = min(sizes.values())
    if timed:
        return [("", {name: arrays[name][row : row + 1] for name in axes}) for row in range(rows)]
    length = min(steps or rows, rows)
    starts = range(0, rows - length + 1, length)
    return [("", {name: arrays[name][first : first + length, None] for name in axes}) for first in starts]


def _steps_axes(tensors: Sequence[TensorMetadata], step_size: int) -> Axes:
    """By input, the first free axis behind the rows. Raises `UsageError`."""
    axes: dict[str, int | None] = {}
    for tensor in tensors:
        free = [axis for axis, size in enumerate(tensor.shape) if axis and size == -1]
        axes[tensor.name] = free[0] if free else None
    if _timed(axes) is None and step_size != 1:
        raise UsageError(f"no input of the model has a free axis of steps; --step-size {step_size} does not fit")
    return axes


def _timed(axes: Axes) -> str | None:
    """An input that has steps."""
    return next((name for name, axis in axes.items() if axis is not None), None)


def _messages_in(arrays: Mapping[str, Array], axes: Axes, step_size: int) -> int:
    name = _timed(axes)
    if name is None:
        return min(len(array) for array in arrays.values())
    steps: int = arrays[name].shape[axes[name] or 0]
    return math.ceil(steps / step_size)


def _cut(
    tensors: Sequence[TensorMetadata], arrays: Mapping[str, Array], axes: Axes, steps: int, step_size: int
) -> list[Message]:
    """A series into its messages: along the steps, or, where no input has them, along the axis in front of the rows."""
    messages: list[Message] = []
    for number in range(steps):
        message = []
        for tensor in tensors:
            array, axis = arrays[tensor.name], axes[tensor.name]
            if axis is not None:
                piece = slice(number * step_size, (number + 1) * step_size)
                array = array[(slice(None),) * axis + (piece,)]
            elif _timed(axes) is None:
                array = array[number]
            message.append(Tensor(tensor.name, tensor.datatype, array, axis))
        messages.append(message)
    return messages
