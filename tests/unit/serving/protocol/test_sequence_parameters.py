"""What the parameters of a request say of its sequence, and what cannot be meant."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from serving.errors import InvalidRequest
from serving.protocol.request import Parameter
from serving.protocol.sequence_parameters import NOTHING, Said, refuse_of_stateless, said
from tests.support import fake_models

Sent = dict[str, Parameter]
KINDS = {bool: "bool", int: "int64", str: "string", float: "double"}


def sent(**values: Any) -> Sent:
    """Parameters by name, without the `sequence_` that they all begin with."""
    return {f"sequence_{name}": Parameter(KINDS[type(value)], value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("parameters", "means"),
    [
        ({}, NOTHING),
        (sent(id=0), NOTHING),
        (sent(id="", start=False, end=False), NOTHING),
        (sent(id=7), Said(7)),
        (sent(id="7", start=True), Said("7", start=True)),
        (sent(id=-1, end=True), Said(2**64 - 1, end=True)),
        ({"sequence_id": Parameter("uint64", 2**64 - 1)}, Said(2**64 - 1)),
        (sent(id=7, start=True, step=0), Said(7, start=True, number=0)),
        (sent(id=7, step=3, epoch=12), Said(7, number=3, epoch=12)),
        (sent(id=7, epoch=0), Said(7)),
        (sent(id="x" * 1024), Said("x" * 1024)),
    ],
)
def test_what_is_said_is_meant(parameters: Sent, means: Said) -> None:
    assert said(parameters, "m") == means


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (sent(id=True), "invalid value type for 'sequence_id' parameter, expected int64_param or string_param."),
        (sent(id=1.5), "invalid value type for 'sequence_id' parameter, expected int64_param or string_param."),
        (sent(id=7, start=1), "invalid value type for 'sequence_start' parameter, expected bool_param."),
        (sent(id=7, end="yes"), "invalid value type for 'sequence_end' parameter, expected bool_param."),
        (sent(id=7, step="0"), "invalid value type for 'sequence_step' parameter, expected int64_param."),
        (sent(id=7, epoch="0"), "invalid value type for 'sequence_epoch' parameter, expected int64_param."),
        (
            sent(id=7, nonce=True),
            "invalid value type for 'sequence_nonce' parameter, expected int64_param or string_param.",
        ),
        (
            sent(start=True),
            "must specify a non-zero or non-empty correlation ID: it has sequence_start, and no sequence_id",
        ),
        (sent(id=0, step=0), "it has sequence_step, and no sequence_id"),
        (sent(id="", end=True), "it has sequence_end, and no sequence_id"),
        (sent(id="é" * 513), "sequence_id has 1026 bytes; at most 1024 are allowed"),
        (sent(id=7, step=-1), "sequence_step is -1; it counts from 0, which is the START"),
        (sent(id=7, start=True, step=1), "sequence_step of a START is 1; it must be 0"),
        (sent(id=7, step=0), "sequence_step is 0, which is the START, but sequence_start is not set"),
        (sent(id=7, start=True, nonce=5), "sequence_nonce is for a START that has sequence_step 0"),
        (sent(id=7, step=1, nonce=5), "sequence_nonce is for a START that has sequence_step 0"),
        (sent(id=7, start=True, epoch=5), "sequence_epoch is for the steps after a START"),
        (sent(id=7, epoch=-1), "sequence_epoch is -1; it must be one that an answer has told"),
    ],
)
def test_what_cannot_be_meant_is_refused(parameters: Sent, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        said(parameters, "m")
    assert told in str(refused.value)


def test_nonces_are_told_apart_by_kind_and_value() -> None:
    nonces = [said(sent(id=7, start=True, step=0, nonce=nonce), "m").nonce for nonce in (5, "5", 6, "", 0)]
    assert len(set(nonces)) == 5
    assert all(nonces), "each is one"
    assert nonces[0] == said(sent(id=8, start=True, step=0, nonce=5), "m").nonce


def test_a_step_belongs_to_its_caller() -> None:
    step = said(sent(id=7, step=3, end=True, epoch=9), "m").step("somebody")
    assert (step.key, step.start, step.end, step.number, step.epoch_said) == (("somebody", 7), False, True, 3, 9)


STATELESS = dataclasses.replace(fake_models.spec(), state=())
NOT_STREAMABLE = dataclasses.replace(fake_models.spec(), streamable=False)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (fake_models.spec(), "add sequence_batching {} to its config.pbtxt, or start the server with --stateful m; or"),
        (NOT_STREAMABLE, "it cannot, since it was not proved to go on where it was cut: send the state yourself"),
        (STATELESS, "it has none of: send each sequence whole"),
    ],
    ids=["could", "could not", "no state"],
)  # fmt: skip
def test_a_model_that_keeps_no_state_says_how_it_can_be_made_to(spec: Any, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        refuse_of_stateless(sent(id=7, start=True), spec, "m")
    assert told in str(refused.value)
    assert "parameters 'sequence_id', 'sequence_start' ask model 'm' to keep state between requests" in str(
        refused.value
    )


@pytest.mark.parametrize("parameters", [{}, sent(id=0), sent(id="", start=False)])
def test_a_model_that_keeps_no_state_takes_what_asks_for_nothing(parameters: Sent) -> None:
    refuse_of_stateless(parameters, fake_models.spec(), "m")


def test_a_wrong_type_is_told_by_every_model() -> None:
    with pytest.raises(InvalidRequest, match="invalid value type for 'sequence_start' parameter"):
        refuse_of_stateless(sent(start=1), fake_models.spec(), "m")
