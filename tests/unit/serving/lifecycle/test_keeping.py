"""Which sequences may go on in another version. What happens to them is seen in tests/simulation/test_sequences.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from serving.lifecycle.keeping import may_carry
from serving.sequences.live import Sequences
from serving.sequences.policy import (
    CARRY_SAME_SHAPES,
    CARRY_SAME_WEIGHTS,
    DRAIN,
    RESTART,
    SequencePolicy,
    StateLayout,
    StateTensor,
)

H = StateTensor("h0", "hn", np.dtype("f4"), (1, 4), np.zeros((1, 4), "f4"))
OURS, OTHERS, UNKNOWN = "a" * 64, "b" * 64, ""


def home(version: str, weights: str, tensor: StateTensor = H) -> Sequences:
    tensor = dataclasses.replace(tensor, initial=np.zeros(tensor.shape, tensor.dtype))
    layout = StateLayout([tensor], weights)
    return Sequences(version, "m", layout, SequencePolicy(), epochs=lambda: 1, busy=lambda key: False)


@pytest.mark.parametrize(
    ("version", "weights", "rules"),
    [
        ("1", OURS, {DRAIN, RESTART, CARRY_SAME_WEIGHTS, CARRY_SAME_SHAPES}),  # as with another limit of the house
        ("1", OTHERS, {CARRY_SAME_SHAPES}),
        ("2", OURS, {CARRY_SAME_WEIGHTS, CARRY_SAME_SHAPES}),
        ("2", OTHERS, {CARRY_SAME_SHAPES}),
        ("1", UNKNOWN, {CARRY_SAME_SHAPES}),
    ],
)
def test_a_state_is_carried_over_only_where_somebody_has_said_so(version: str, weights: str, rules: set[str]) -> None:
    every = (DRAIN, RESTART, CARRY_SAME_WEIGHTS, CARRY_SAME_SHAPES)
    assert {rule for rule in every if may_carry(home("1", OURS), home(version, weights), rule)} == rules


def test_unknown_weights_are_like_no_others() -> None:
    assert not may_carry(home("1", UNKNOWN), home("1", UNKNOWN), CARRY_SAME_WEIGHTS)


@pytest.mark.parametrize(
    "changed",
    [{"shape": (2, 4)}, {"dtype": np.dtype("f8")}, {"input": "h"}, {"output": "h_next"}],
    ids=["shape", "datatype", "input", "output"],
)
def test_a_state_of_another_shape_is_never_carried_over(changed: dict[str, object]) -> None:
    other = home("1", OURS, dataclasses.replace(H, **changed))  # type: ignore[arg-type]
    assert not may_carry(home("1", OURS), other, CARRY_SAME_SHAPES)
