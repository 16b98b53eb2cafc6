"""What a request to a stateful model may hold: a step of one sequence, or all of its state."""

from __future__ import annotations

import hashlib

from serving.errors import InvalidRequest
from serving.protocol.codec import Decoded
from serving.protocol.elements import bytes_of
from serving.sequences.step import Step
from serving.signature.controls import CORRID
from serving.signature.spec import ModelSpec


def check_alone(spec: ModelSpec, decoded: Decoded, model: str) -> None:
    """A request to a stateful model that belongs to no sequence brings all of its state. Raises `InvalidRequest`."""
    if not all(name in decoded.inputs for name in spec.state_inputs):
        raise InvalidRequest(
            f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID: send sequence_id (with "
            f"sequence_start on the first request of a sequence), or all of the state yourself: {list(spec.state_inputs)}"
        )


def check_step(step: Step, spec: ModelSpec, decoded: Decoded, model: str) -> None:
    """What a step may not hold, whatever its sequence is. Raises `InvalidRequest`."""
    if decoded.rows != 1:
        raise InvalidRequest(
            f"inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher; got "
            f"{decoded.rows}: a request is a step of one sequence"
        )
    for control in spec.controls:
        if control.kind == CORRID and (why := control.refuses(step.key[1], spec.inputs_by_name[control.input].dtype)):
            raise InvalidRequest(f"sequence_id {step.key[1]!r} of model '{model}' {why}: use another id")
    if not step.start and (brought := [name for name in spec.state_inputs if name in decoded.inputs]):
        raise InvalidRequest(
            f"the server keeps the state of sequence {step.key[1]!r}, but the request brings {brought}: only a START "
            "may bring the "
            "state to begin with"
        )


def digest_of(decoded: Decoded, step: Step) -> bytes:
    """Of everything that the answer depends on: inputs, outputs asked for, START and END."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(decoded.inputs.items()):
        content = bytes_of(array)
        digest.update(f"{name}\0{array.shape}\0{len(content)}\0".encode())
        digest.update(content)
    digest.update(repr((list(decoded.outputs), sorted(decoded.classes.items()), step.start, step.end)).encode())
    return digest.digest()
