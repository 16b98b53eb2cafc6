"""What a request may hold: shapes, values and parameters, each with the sentence for what is wrong.

The messages follow Triton's, since people search for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.batching.pending import Turn
from serving.errors import InvalidInput, InvalidRequest
from serving.protocol import sequence_parameters
from serving.protocol.elements import bytes_of
from serving.protocol.request import Parameter
from serving.signature.spec import ModelSpec
from serving.signature.tensors import BF16, TensorSpec

# Parameters that mean something here, by how they are written without capitals, underscores and hyphens.
_MEANT = {name.replace("_", ""): name for name in ("priority", "timeout", *sequence_parameters.KINDS)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a request may ask for: `max_rows` rows, and `max_steps` along the axis of steps.

    With `text_only` every element of a BYTES tensor must be UTF-8, with `finite_only` every number of a true step finite.
    A `stateful` version keeps state between requests.
    """

    max_rows: int
    max_steps: int
    text_only: bool = False
    finite_only: bool = False
    stateful: bool = False


def shape(sent: tuple[int, ...], tensor: TensorSpec, spec: ModelSpec, limits: Limits, model: str) -> tuple[int, ...]:
    """The shape to compute with, the rows first, if what was sent fits: of the right rank, equal where fixed, within the limits.

    There is at least one row; other free axes may be empty where the specification says so.
    """
    name, allowed = tensor.name, tensor.shown or tensor.shape
    counted = 1 if spec.may_be_empty else len(allowed)
    shape = _with_rows(sent, tensor, spec)
    if not shape:
        raise InvalidInput(f"input '{name}' has no shape but model requires batch dimension for '{model}'")
    if any(size < 0 for size in shape):
        raise InvalidInput(
            f"All input dimensions should be specified for input '{name}' for model '{model}', got {listed(shape)}"
        )
    fits = (
        len(shape) == len(allowed)
        and all(fixed in (-1, size) for size, fixed in zip(shape, allowed, strict=True))
        and all(shape[:counted])
    )
    if fits and shape[0] > limits.max_rows:  # before any of its data is read
        raise _too_many_rows(shape[0], limits, model)
    if not fits:
        shown = "[" + ",".join(str(size) for size in sent[:16]) + (",...]" if len(sent) > 16 else "]")
        raise InvalidInput(
            f"unexpected shape for input '{name}' for model '{model}'. Expected {listed(spec.shown_shape(tensor))}, got "
            f"{shown}. -1 stands for any size, for rows and steps from 1."
        )
    computed = tensor.as_computed(shape)
    if tensor.steps_axis is not None and computed[tensor.steps_axis] > limits.max_steps:
        raise InvalidInput(
            f"input '{name}' has {computed[tensor.steps_axis]} steps, but at most {limits.max_steps} are allowed for model "
            f"'{model}': cut it into pieces, or start the server with a larger --max-steps"
        )
    return computed


def listed(values: Iterable[object]) -> str:
    """`[-1,3]` or `['x','lengths']`: without blanks, as Triton writes lists and as clients compare them."""
    return "[" + ",".join(map(repr, values)) + "]"


def _too_many_rows(rows: int, limits: Limits, model: str) -> InvalidInput:
    return InvalidInput(
        f"inference request batch-size must be <= {limits.max_rows} for '{model}'; got {rows}: "
        "split the request, or raise max_batch_size in config.pbtxt"
    )


def _with_rows(shape: tuple[int, ...], tensor: TensorSpec, spec: ModelSpec) -> tuple[int, ...]:
    """The shape that was sent, with an axis of rows in front where the client has left it out because there is none."""
    ours = len(tensor.shown or tensor.shape)
    if not spec.batched:
        return (1,) if ours == 1 and shape == (1,) else (1, *shape)  # a scalar may come as one element
    if tensor.name in spec.shared:
        if len(shape) == ours - 1:
            return (1, *shape)
        if ours == 1 and len(shape) == 2 and shape[1] == 1:  # a scalar for each row
            return shape[:1]
    return shape


def one_of_all(array: npt.NDArray[Any], tensor: TensorSpec, model: str) -> npt.NDArray[Any]:
    """What all rows share, given once or for each of them: then they must agree."""
    if any(bytes_of(row) != bytes_of(array[0]) for row in array[1:]):
        raise InvalidInput(
            f"input '{tensor.name}' for model '{model}' differs between rows, but the model takes one for all of them: "
            "send the rows in requests of their own"
        )
    return array


def text(strings: npt.NDArray[Any], tensor: TensorSpec, model: str) -> None:
    """Every element is UTF-8. Raises `InvalidInput`."""
    for place, element in enumerate(strings.flat):
        try:
            element.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"element {place} of input '{tensor.name}' for model '{model}' is not UTF-8, and the backend that "
                f"serves it takes text only: {error.reason} at byte {error.start}"
            ) from error


def lengths(sent: npt.NDArray[Any], steps: int, name: str, model: str) -> None:
    """Every row has at least one true step, and no more than were sent. Raises `InvalidInput`."""
    if sent.min() < 1 or sent.max() > steps:
        wrong = [int(length) for length in sent.flat if not 1 <= length <= steps]
        raise InvalidInput(
            f"input '{name}' for model '{model}' holds {wrong[0]}, but every length must be within 1 and the {steps} "
            "steps that were sent"
        )


def finite(array: npt.NDArray[Any], tensor: TensorSpec, lengths: npt.NDArray[Any] | None, model: str) -> None:
    """Every number of a true step is finite; `lengths` says how many those are, None where all are. Raises `InvalidInput`.

    One look is enough where all is well. The padding may hold anything, so a place is looked for only where something is not.
    """
    if array.dtype == BF16:
        right = (array.view(np.uint16) & 0x7F80) != 0x7F80  # an exponent of ones is no finite number
    elif array.dtype.kind == "f":
        right = np.isfinite(array)
    else:
        return
    if not array.size or right.item(right.argmin()):  # the first that is wrong; sooner than `all`
        return
    wrong = ~right
    steps = tensor.steps_axis
    if lengths is not None and steps is not None:
        true = np.arange(array.shape[steps]) < lengths.reshape(len(array), 1)
        wrong &= true.reshape([len(array), *(array.shape[a] if a == steps else 1 for a in range(1, array.ndim))])
    if not wrong.any():
        return
    place = tuple(int(each) for each in np.argwhere(wrong)[0])
    where = f"row {place[0]}" + (f", step {place[steps]}" if steps is not None else "")
    value = "NaN or infinity" if array.dtype == BF16 else str(array[place])
    raise InvalidInput(
        f"input '{tensor.name}' for model '{model}' holds {value} in {where}, and what a recurrent network answers to it "
        "means nothing from there on: send finite numbers, or set nonfinite to pass in parameters of config.pbtxt"
    )


def tokens(inputs: Mapping[str, npt.NDArray[Any]], spec: ModelSpec, model: str) -> None:
    """Every true step holds an id of the vocabulary. Raises `InvalidInput`."""
    tensor = spec.advertised_inputs[0]
    ids = inputs[tensor.name]
    outside = ~((ids >= 0) & (ids < spec.vocabulary))  # NaN, where ids come as floats, is none either
    if spec.told and spec.told.of == tensor.name and spec.told.input in inputs:
        outside &= np.arange(ids.shape[1]) < inputs[spec.told.input].reshape(len(ids), 1)
    if outside.any():
        raise InvalidInput(
            f"input '{tensor.name}' for model '{model}' holds token {ids[outside][0]:g}, which is outside its "
            f"vocabulary of {spec.vocabulary}: ids are 0 to {spec.vocabulary - 1}"
        )


def parameters(sent: Mapping[str, Parameter], spec: ModelSpec, model: str, *, stateful: bool = False) -> Turn:
    """What they ask of the queue. Refuses what would be misunderstood; those of the client's own mean nothing here.

    What they say of a sequence is refused unless the model is `stateful`, and then read elsewhere.
    """
    for name, parameter in sent.items():
        kind = parameter.kind
        if not kind:
            raise InvalidRequest(f"parameter '{name}' has no value; set one of its typed fields")
        _not_misspelt(name)
        if stateful and name.startswith("sequence_") and name not in sequence_parameters.KINDS:
            raise InvalidRequest(
                f"parameter '{name}' means nothing to model '{model}', which keeps sequences; those that do are "
                f"{', '.join(sequence_parameters.KINDS)}"
            )
        if name == "priority" and kind not in ("int64", "uint64"):
            raise InvalidRequest(
                "invalid value type for 'priority' parameter, expected int64_param or uint64_param (1 is served first)."
            )
        if name == "priority" and parameter.value < 0:
            raise InvalidRequest("invalid value for 'priority', expected value >= 0.")
        if name == "timeout" and kind != "int64":
            raise InvalidRequest("invalid value type for 'timeout' parameter, expected int64_param (microseconds).")
        if name.startswith("triton_"):
            if name != "triton_enable_empty_final_response":
                raise InvalidRequest(
                    f"parameter keys starting with 'triton_' are reserved; '{name}' is not a known one"
                )
            if kind != "bool":
                raise InvalidRequest(f"invalid value type for '{name}' parameter, expected bool_param.")
    if not stateful:
        sequence_parameters.refuse_of_stateless(sent, spec, model)
    priority, timeout_us = (sent[name].value if name in sent else 0 for name in ("priority", "timeout"))
    return Turn(priority, max(timeout_us, 0) * 1000)


def _not_misspelt(name: str) -> None:
    """Refuses what is meant for a parameter of ours and written otherwise, as `Priority` or `time_out`.

    Any other name may be a client's own, however near it comes to one of ours.
    """
    meant = _MEANT.get(name.lower().replace("_", "").replace("-", ""), name)
    if name != meant:
        raise InvalidRequest(f"parameter '{name}' means nothing; write it '{meant}'")
