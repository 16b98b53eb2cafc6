"""What a request to a stateful model may hold, and what makes two of them the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from serving.errors import InvalidRequest
from serving.protocol.codec import Decoded
from serving.protocol.steps import check_alone, check_step, digest_of
from serving.sequences.step import Step
from serving.signature.controls import CORRID, START, ControlInput
from serving.signature.spec import ModelSpec
from serving.signature.tensors import TensorSpec
from tests.support import fake_models

SPEC = fake_models.spec()
STATE = {name: np.zeros((1, 1, 4), np.float32) for name in ("h0", "c0")}


def decoded(
    rows: int = 1, outputs: tuple[str, ...] = ("y",), classes: dict[str, int] | None = None, **inputs: Any
) -> Decoded:
    x = np.zeros((rows, 2, fake_models.FEATURES), np.float32)
    return Decoded({"x": x, **inputs}, rows, 2, outputs, classes or {}, ())


def told_of(datatype: str, kind: str = CORRID) -> ModelSpec:
    """The model, which is told something of the sequence."""
    tensor = TensorSpec("told", datatype, (-1, 1))
    control = ControlInput("told", kind, "" if datatype == "BYTES" else 0, 0)
    return dataclasses.replace(SPEC, inputs=(*SPEC.inputs, tensor), controls=(control,))


def test_who_belongs_to_no_sequence_brings_all_of_the_state() -> None:
    check_alone(SPEC, decoded(rows=3, **STATE), "m")
    for inputs in ({}, {"h0": STATE["h0"]}):
        with pytest.raises(
            InvalidRequest, match=r"must specify a non-zero or non-empty correlation ID: .* \['h0', 'c0'\]"
        ):
            check_alone(SPEC, decoded(**inputs), "m")


def test_a_step_is_one_row() -> None:
    check_step(Step(("", 1)), SPEC, decoded(), "m")
    with pytest.raises(
        InvalidRequest, match="must specify batch-size 1 due to requirements of sequence batcher; got 2"
    ):
        check_step(Step(("", 1)), SPEC, decoded(rows=2), "m")


def test_only_a_start_brings_state() -> None:
    check_step(Step(("", 1), start=True), SPEC, decoded(**STATE), "m")
    with pytest.raises(
        InvalidRequest, match=r"the server keeps the state of sequence 1, but the request brings \['h0', 'c0'\]"
    ):
        check_step(Step(("", 1)), SPEC, decoded(**STATE), "m")


@pytest.mark.parametrize(
    ("datatype", "id", "why"),
    [
        ("UINT64", 2**64 - 1, ""),
        ("INT64", 2**63 - 1, ""),
        ("INT64", 2**63, f"is not one of {-(2**63)} to {2**63 - 1}, which input told can be told"),
        ("INT32", 2**31, "is not one of"),
        ("UINT32", 2**32, "is not one of"),
        ("UINT64", "five", "is a text, and input told, which is told it, takes whole numbers"),
        ("BYTES", "five", ""),
        ("BYTES", 5, ""),
    ],
)
def test_an_id_that_the_file_cannot_be_told_is_refused(datatype: str, id: int | str, why: str) -> None:
    if not why:
        check_step(Step(("", id)), told_of(datatype), decoded(), "m")
        return
    with pytest.raises(InvalidRequest, match=f"sequence_id {id!r} of model 'm' {why}"):
        check_step(Step(("", id)), told_of(datatype), decoded(), "m")


def test_whoever_is_told_of_no_id_takes_any() -> None:
    check_step(Step(("", "five")), told_of("INT32", START), decoded(), "m")


def test_two_messages_are_the_same_where_the_answer_must_be() -> None:
    step = Step(("", 1), number=1)
    first = digest_of(decoded(), step)
    assert first == digest_of(decoded(), Step(("", 1), number=1, epoch_said=7))
    others = [
        digest_of(decoded(**STATE), step),
        digest_of(decoded(outputs=("y", "hn")), step),
        digest_of(decoded(outputs=("hn", "y")), step),
        digest_of(decoded(classes={"y": 1}), step),
        digest_of(decoded(), Step(("", 1), number=1, end=True)),
        digest_of(decoded(), Step(("", 1), number=0, start=True)),
        digest_of(decoded(x=np.ones((1, 2, 3), np.float32)), step),
        digest_of(decoded(x=np.zeros((1, 3, 2), np.float32)), step),
    ]
    assert len({first, *others}) == len(others) + 1
