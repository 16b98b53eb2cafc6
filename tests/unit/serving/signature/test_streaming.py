"""Why a model cannot be fed in pieces, by what is known of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from serving.signature.spec import ModelSpec
from serving.signature.streaming import flags, may_go_on, not_kept, not_proved, pairs, suggested, which_pairs, why_not
from serving.signature.tensors import TensorSpec
from tests.support import fake_models
from tests.support.foreign_specs import ALONE, SHARED

PLAIN = fake_models.spec()


def changed(**changes: Any) -> ModelSpec:
    return dataclasses.replace(PLAIN, **changes)


def test_one_that_can() -> None:
    assert why_not(PLAIN) == why_not(SHARED) == ""


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (TensorSpec("h0", "FP32", (-1, 1, 4)), ""),
        (TensorSpec("h0", "FP32", (-1, 1, 4), rows_axis=1), ""),
        (TensorSpec("h0", "BYTES", (-1, 1, 4)), "state 'h0' holds strings (BYTES)"),
        (TensorSpec("h0", "FP32", (-1, 1, 4), rows_axis=None), "state 'h0' has no axis of rows"),
        (TensorSpec("h0", "FP32", (-1, -1, 4)), "a free one (-1) gives it no size to keep; ... --shape h0:SIZES"),
        (TensorSpec("h0", "FP32", (-1, 1, 5)), "is [1, 5] behind the rows, and 'hn', as which it goes on, [1, 4]"),
        (TensorSpec("h0", "FP32", (-1, 4)), "is [4] behind the rows, and 'hn', as which it goes on, [1, 4]"),
    ],
)
def test_whether_a_state_can_be_kept(state: TensorSpec, said: str) -> None:
    outputs = tuple(
        dataclasses.replace(one, datatype=state.datatype) if one.name == "hn" else one for one in PLAIN.outputs
    )
    spec = changed(inputs=(*PLAIN.inputs[:2], state, PLAIN.inputs[3]), outputs=outputs)
    assert (not_kept(spec) == "") == (said == "")
    assert all(part in not_kept(spec) for part in said.split(" ... "))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (changed(streamable=False, source={"network": {"bidirectional": True}}), "in both directions (bidirectional)"),
        (changed(state=()), "it has no state: no output of it is known"),
        (ALONE, "it has no state"),
        (changed(streamable=False), "otherwise than to the whole, as trying has shown"),
        (
            dataclasses.replace(
                PLAIN, lengths=None, streamable=False, inputs=(TensorSpec("x", "FP32", (-1, -1, -1)), *PLAIN.inputs[1:])
            ),
            "free sizes of which nobody knows which are steps",
        ),
    ],
)
def test_one_that_cannot(spec: ModelSpec, said: str) -> None:
    assert said in why_not(spec)


def test_pairs_of_a_file_that_takes_one_step_a_call_are_not_proved() -> None:
    one_step = dataclasses.replace(PLAIN, lengths=None, inputs=(TensorSpec("x", "FP32", (-1, 3)), *PLAIN.inputs[1:]))
    assert (not_proved(PLAIN), pairs(PLAIN)) == ("", "h0->hn, c0->cn")
    assert not_proved(one_step) == "pairs not proved: one step a call"
    assert pairs(one_step) == "h0->hn, c0->cn (pairs not proved: one step a call)"
    without = dataclasses.replace(one_step, state=(), streamable=False)
    assert (not_proved(without), pairs(without)) == ("", "")


def test_what_may_go_on_as_what_is_told_by_the_names_that_are_there() -> None:
    named = ("y", "y1", "y2")
    outputs = tuple(dataclasses.replace(one, name=name) for one, name in zip(PLAIN.outputs, named, strict=False))
    spec = changed(state=(), streamable=False, outputs=outputs)
    assert may_go_on(spec) == {"h0": ["y1", "y2"], "c0": ["y1", "y2"]}
    assert suggested(spec) == {"h0": "y1", "c0": "y2"}
    assert flags(spec) == "--state h0=y1 --state c0=y2"
    assert "(by datatype and sizes these could be: h0 -> y1 or y2, c0 -> y1 or y2)" in which_pairs(spec)


def test_what_would_be_believed_is_not_suggested() -> None:
    spec = changed(
        state=(), streamable=False, lengths=None, inputs=(TensorSpec("x", "FP32", (-1, 3)), *PLAIN.inputs[2:])
    )
    assert may_go_on(spec)
    assert (suggested(spec), flags(spec)) == ({}, "--state INPUT=OUTPUT")


def test_a_state_that_is_hidden_within() -> None:
    spec = changed(state=(), streamable=False, inputs=PLAIN.inputs[:2], outputs=PLAIN.outputs[:1])
    assert (
        "let it take its state as an input and give the next value as an output: none of its outputs (y)"
        in which_pairs(spec)
    )
