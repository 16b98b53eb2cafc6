"""What the parameters of a request say of its sequence: Triton's own three, and ours for whoever wants exactly once.

Names and types of `sequence_id`, `sequence_start` and `sequence_end` are those of Triton's sequence extension
(https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_sequence.md); so are sentences about them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from serving.errors import InvalidRequest
from serving.protocol.request import Parameter
from serving.sequences.step import Step
from serving.signature.spec import ModelSpec

ID, START, END = "sequence_id", "sequence_start", "sequence_end"
STEP, NONCE, EPOCH = "sequence_step", "sequence_nonce", "sequence_epoch"
MOST_ID_BYTES = 1024
_WHOLE = ("int64", "uint64")
# What each may be, and how that is told; 0, "" and false ask for nothing.
KINDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    ID: ((*_WHOLE, "string"), "int64_param or string_param"),
    START: (("bool",), "bool_param"),
    END: (("bool",), "bool_param"),
    STEP: (_WHOLE, "int64_param"),
    NONCE: ((*_WHOLE, "string"), "int64_param or string_param"),
    EPOCH: (_WHOLE, "int64_param"),
}


class Said(NamedTuple):
    """`id` is 0 where there is none, `nonce` empty, `number` None, `epoch` 0."""

    id: int | str = 0
    start: bool = False
    end: bool = False
    number: int | None = None
    nonce: bytes = b""
    epoch: int = 0

    def step(self, caller: str, stream: int = 0) -> Step:
        """The step of a request that has an id, asked by this caller, on this stream if it has come on one."""
        return Step(
            (caller, self.id),
            start=self.start,
            end=self.end,
            number=self.number,
            nonce=self.nonce,
            epoch_said=self.epoch,
            stream=stream,
        )


NOTHING = Said()


def id_of(sent: Mapping[str, Parameter]) -> int | str:
    """The id that parameters have, whatever else is wrong with them; 0 where there is none, or it is none."""
    parameter = sent.get(ID)
    if parameter is None or parameter.kind not in KINDS[ID][0]:
        return 0
    id: int | str = parameter.value
    return id % 2**64 if isinstance(id, int) else id


def said(sent: Mapping[str, Parameter], model: str) -> Said:
    """What they say of a sequence. Raises `InvalidRequest` for what cannot be meant."""
    _check_kinds(sent)
    start, end = (bool(sent[name].value) if name in sent else False for name in (START, END))
    id = id_of(sent)
    if isinstance(id, str) and len(id.encode()) > MOST_ID_BYTES:
        raise InvalidRequest(f"sequence_id has {len(id.encode())} bytes; at most {MOST_ID_BYTES} are allowed")
    if not id:
        if asking := [name for name in KINDS if name in sent and name != ID and (sent[name].value or name == STEP)]:
            raise InvalidRequest(
                f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID: it has "
                f"{asking[0]}, and no "
                "sequence_id"
            )
        return NOTHING
    number = sent[STEP].value if STEP in sent else None
    epoch = sent[EPOCH].value if EPOCH in sent else 0
    if number is not None and not 0 <= number < 2**63:
        raise InvalidRequest(f"sequence_step is {number}; it counts from 0, which is the START")
    if start and number:
        raise InvalidRequest(f"sequence_step of a START is {number}; it must be 0, from where it counts")
    if number == 0 and not start:
        raise InvalidRequest(
            "sequence_step is 0, which is the START, but sequence_start is not set; later steps count from 1"
        )
    if NONCE in sent and not (start and number == 0):
        raise InvalidRequest(
            "sequence_nonce is for a START that has sequence_step 0, so that it may be sent again; leave it out elsewhere"
        )
    if start and epoch:
        raise InvalidRequest("sequence_epoch is for the steps after a START, which begins a new one; leave it out")
    if epoch and not 0 < epoch < 2**63:
        raise InvalidRequest(f"sequence_epoch is {epoch}; it must be one that an answer has told")
    nonce = _digest(repr(sent[NONCE].value).encode()) if NONCE in sent else b""
    return Said(id, start, end, number, nonce, epoch)


def _check_kinds(sent: Mapping[str, Parameter]) -> None:
    for name, (kinds, told) in KINDS.items():
        if name in sent and sent[name].kind not in kinds:
            raise InvalidRequest(f"invalid value type for '{name}' parameter, expected {told}.")


def refuse_of_stateless(sent: Mapping[str, Parameter], spec: ModelSpec, model: str) -> None:
    """A model that keeps no state is asked to keep some. Raises `InvalidRequest`, saying how it can be made to."""
    _check_kinds(sent)
    asking = [name for name in KINDS if name in sent and sent[name].value]
    if not asking:
        return
    several, verb = ("s", "ask") if len(asking) > 1 else ("", "asks")
    raise InvalidRequest(
        f"parameter{several} {', '.join(map(repr, asking))} {verb} model '{model}' to keep state between requests, which "
        f"{_instead_of_keeping(spec, model)} leave {'them' if several else 'it'} out"
    )


def _instead_of_keeping(spec: ModelSpec, model: str) -> str:
    """What turns it on, and what a client does itself, where the model lets it carry the state from one request to the next."""
    if not spec.state:
        return "it has none of: send each sequence whole, and"
    inputs, outputs = (" and ".join(getattr(pair, side) for pair in spec.state) for side in ("input", "output"))
    several = "s" if len(spec.state) > 1 else ""
    carried = f"send the state yourself (input{several} {inputs}, output{several} {outputs}), or"
    if not spec.streamable:
        return f"it cannot, since it was not proved to go on where it was cut: {carried}"
    how = f"add sequence_batching {{}} to its config.pbtxt, or start the server with --stateful {model}"
    return f"it does not: {how}; or {carried}"


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
