"""What sequences of a model send, and the state in which each has to end: made before anything is measured."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from loadtest import continuation, inputs, step_messages
from loadtest.command_line import DEFAULT_STEPS
from loadtest.continuation import State, StateTensor
from loadtest.errors import LoadTestError, UsageError
from loadtest.step_messages import Series
from loadtest.target import Target
from protos import grpc_service_pb2 as pb


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is sent: `head` names the model, `series` are sent in turn. `expected` is the state after each, None if unknown.

    `why_not` says why nothing can be compared then.
    """

    head: bytes
    series: Sequence[Series]
    state: Sequence[StateTensor] = ()
    expected: Sequence[State] | None = None
    why_not: str = ""


def plan_of(options: argparse.Namespace, target: Target, metadata: pb.ModelMetadataResponse) -> Plan:
    """What sequences send, and the state in which each has to end, as the server computes it without a sequence.

    Raises `UsageError` for what does not fit the model, and for one that its server says to be stateless.
    """
    why_not = ""
    state: Sequence[StateTensor] = ()
    config = target.config(options.model, options.model_version)
    if config is not None and not config.HasField("sequence_batching"):
        raise UsageError(
            f"{options.model!r} keeps no state between requests (its ModelConfig has no sequence_batching), so it has no "
            "sequences: add sequence_batching {} to its config.pbtxt, or start lstm-serve with "
            f"--stateful {options.model}; or leave --sequences out"
        )
    try:
        state = continuation.state_of(config)
    except LoadTestError as error:
        why_not = str(error)
    hidden = {each.input for each in state}
    hidden |= {control.name for control in config.sequence_batching.control_input} if config else set()
    tensors = [tensor for tensor in metadata.inputs if tensor.name not in hidden]
    step_size = options.step_size or 1
    if options.data:
        messages = step_messages.messages_from_file(options.data, tensors, steps=options.steps, step_size=step_size)
    else:
        messages = step_messages.random_messages(
            tensors,
            steps=options.steps or DEFAULT_STEPS,
            step_size=step_size,
            shapes=inputs.parse_shapes(options.shape),
            token_limit=options.token_limit,
            seed=options.seed,
            count=inputs.DISTINCT,
        )
    expected = None
    if state:
        try:
            expected = [
                continuation.uninterrupted(each, state, target.infer, options.model, options.model_version)
                for each in messages
            ]
        except LoadTestError as error:
            why_not = f"the server does not compute them without a sequence: {error}"
    outputs = [output.name for output in metadata.outputs if output.name not in {each.output for each in state}]
    asked = [*outputs, *(each.output for each in state)] if expected else ()
    return Plan(
        head=pb.ModelInferRequest(model_name=options.model, model_version=options.model_version).SerializeToString(),
        series=[step_messages.series_of(each, asked) for each in messages],
        state=state,
        expected=expected,
        why_not=why_not,
    )
