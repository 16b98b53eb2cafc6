"""Why a model cannot be fed in pieces, by what is known of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from serving.signature.spec import ModelSpec
from serving.signature.streaming import why_not
from serving.signature.tensors import TensorSpec
from tests.support import fake_models
from tests.support.foreign_specs import ALONE, SHARED

PLAIN = fake_models.spec()


def changed(**changes: Any) -> ModelSpec:
    return dataclasses.replace(PLAIN, **changes)


def test_one_that_can() -> None:
    assert why_not(PLAIN) == why_not(SHARED) == ""


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
