"""Whether a sequence was continued rightly: the state after its last step, beside that of one run without a break.

The server is asked itself, once for each series before anything is measured: all its steps in one request that brings a fresh
state, which no sequence has a part in. A step that was lost, computed twice, or computed with somebody else's state leaves
another state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from loadtest.data_files import Array
from loadtest.errors import LoadTestError
from loadtest.step_messages import Message, Tensor, encoded
from protos import grpc_service_pb2 as pb
from protos import model_config_pb2 as pb_config
from serving.signature.tensors import DTYPES

TOLERANCE = 1e-5  # of |a - b| / max(1, |b|)
MOST_STEPS = (
    1024  # of one request; longer series are asked message by message, each bringing the state of the one before
)

Ask = Callable[[pb.ModelInferRequest], pb.ModelInferResponse]
State = Mapping[str, Array]  # by output


class StateTensor(NamedTuple):
    """What `output` gives after a step is what `input` takes at the next; a fresh one is zeros of this shape."""

    input: str
    output: str
    datatype: str
    shape: tuple[int, ...]


def state_of(config: pb_config.ModelConfig | None) -> tuple[StateTensor, ...]:
    """The state of a stateful model. Raises `LoadTestError`, saying why nothing can be compared."""
    if config is None:
        raise LoadTestError("the server tells no ModelConfig")
    if not config.sequence_batching.state:
        raise LoadTestError("the server names no state in its ModelConfig")
    found = []
    for state in config.sequence_batching.state:
        datatype = pb_config.DataType.Name(state.data_type).removeprefix("TYPE_")
        if datatype not in DTYPES or -1 in state.dims or any(made.data_file for made in state.initial_state):
            raise LoadTestError(f"what a fresh state '{state.input_name}' holds is not told")
        rows = (1,) if config.max_batch_size else ()
        found.append(StateTensor(state.input_name, state.output_name, datatype, (*rows, *state.dims)))
    return tuple(found)


def uninterrupted(
    messages: Sequence[Message], state: Sequence[StateTensor], ask: Ask, model: str, version: str
) -> State:
    """The state after all of a series, without a sequence. Raises `LoadTestError` if the server does not compute that."""
    held: dict[str, Array] = {each.input: np.zeros(each.shape, DTYPES[each.datatype]) for each in state}
    found: State = {}
    for message in _pieces(messages):
        brought = [Tensor(each.input, each.datatype, held[each.input]) for each in state]
        request = pb.ModelInferRequest(model_name=model, model_version=version)
        request.MergeFromString(encoded([*message, *brought], [each.output for each in state]))
        found = state_in(ask(request), state)
        held = {each.input: found[each.output] for each in state}
    return found


def state_in(response: pb.ModelInferResponse, state: Sequence[StateTensor]) -> State:
    """What an answer holds of the state. Raises `LoadTestError` where it lacks some."""
    places = {output.name: place for place, output in enumerate(response.outputs)}
    found: dict[str, Array] = {}
    for each in state:
        place = places.get(each.output, len(response.raw_output_contents))
        if place >= len(response.raw_output_contents):
            raise LoadTestError(f"the answer lacks the state '{each.output}'")
        found[each.output] = np.frombuffer(response.raw_output_contents[place], DTYPES[each.datatype]).reshape(
            list(response.outputs[place].shape)
        )
    return found


def distance(state: State, expected: State) -> float:
    """How far one state is from another: the largest |a - b| / max(1, |b|); infinite where they cannot be compared."""
    worst = 0.0
    for name, right in expected.items():
        got = state[name]
        if got.shape != right.shape:
            return math.inf
        if right.dtype.kind != "f":
            worst = max(worst, 0.0 if np.array_equal(got, right) else math.inf)
            continue
        a, b = got.astype(np.float64), right.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            away = np.where(same, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(b)))
        worst = max(worst, float(np.nan_to_num(away, nan=math.inf, posinf=math.inf).max(initial=0.0)))
    return worst


def _pieces(messages: Sequence[Message]) -> Sequence[Message]:
    """All messages as one along their steps, where there are any and not too many; else as they are."""
    whole = [
        tensors[0]
        if tensors[0].steps_axis is None
        else tensors[0]._replace(array=np.concatenate([each.array for each in tensors], tensors[0].steps_axis))
        for tensors in zip(*messages, strict=True)
    ]
    steps = [tensor.array.shape[tensor.steps_axis] for tensor in whole if tensor.steps_axis is not None]
    return [whole] if steps and max(steps) <= MOST_STEPS else messages
