"""Which networks may be plain stacks at all, and what they are tried with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import ExportError
from export.samples import UserSamples
from export.sources import plain
from export.versions import Target
from models.checkpoint import Checkpoint
from models.config import LSTMConfig
from serving.signature.tensors import Tensors
from serving.verification import inspection
from tests.support import artefacts


@pytest.mark.parametrize(
    ("inputs", "linear", "embeddings", "widths", "directions", "why"),
    [
        (1, 1, 0, {16}, {1}, ""),
        (1, 1, 1, {16}, {2}, ""),
        (2, 1, 0, {16}, {1}, "a plain stack has one input, LSTM layers, one linear layer .* here there are: inputs 2"),
        (1, 1, 0, set(), set(), "no LSTM, linear layers 1, embeddings 0"),
        (1, 2, 0, {16}, {1}, "linear layers 2"),
        (1, 1, 2, {16}, {1}, "embeddings 2"),
        (1, 1, 0, {16, 8}, {1}, "its LSTM layers are 8 and 16 wide, and the canonical state has one width"),
        (1, 1, 0, {16}, {1, 2}, "some of its LSTM layers have one direction and some two"),
    ],
)
def test_parts_that_rule_a_plain_stack_out(
    inputs: int, linear: int, embeddings: int, widths: set[int], directions: set[int], why: str
) -> None:
    said = plain.why_not(inputs, linear, embeddings, widths, directions)
    assert re.search(why, said) if why else said == ""


def test_one_candidate_for_each_head_that_may_be() -> None:
    made = list(plain.configs(None, 8, 2, 16, bidirectional=False, outputs=3))
    assert [config.head for config in made] == ["values_per_step", "values", "classification"]
    assert {(config.features, config.layers, config.hidden, config.outputs) for config in made} == {(8, 2, 16, 3)}
    tokens = list(plain.configs((11, 4), 0, 1, 16, bidirectional=True, outputs=1))
    assert [config.head for config in tokens] == ["values_per_step", "values"]  # one class is none
    assert {(config.vocabulary, config.embedding, config.directions) for config in tokens} == {(11, 4, 2)}


def test_inputs_are_of_either_sign_larger_too_and_some_are_long() -> None:
    made = list(plain.usual_and_unusual(LSTMConfig(features=2, outputs=2)))
    assert {x.shape[:2] for x in made} == {(1, 1), (3, 7), (2, 24), (1, plain.LONG)}
    assert {x.dtype for x in made} == {np.dtype(np.float32)}
    assert {bool((x >= 0).all()) for x in made} == {bool((x <= 0).all()) for x in made} == {True, False}
    assert max(np.abs(x).max() for x in made) > 10


def test_a_network_of_a_fixed_length_is_tried_with_that_one() -> None:
    config = LSTMConfig(input="tokens", vocabulary=5, embedding=2, outputs=2)
    made = list(plain.usual_and_unusual(config, steps=9, first_id=1))
    assert {x.shape[1] for x in made} == {9}
    assert {int(x.min()) for x in made} == {1}
    assert max(int(x.max()) for x in made) == 4


@pytest.mark.parametrize("rows_first", [True, False])
def test_a_persons_samples_are_a_plain_stacks_own(rows_first: bool, tmp_path: Path) -> None:
    """Each row of them, whatever order of axes the module has; the answers are held to the module's."""
    config = LSTMConfig(features=2, hidden=3, outputs=2)
    checkpoint = Checkpoint(config=config, weights=artefacts.weights(config), framework="torch", training={})
    stated = inspection.unproved({"x": ("FP32", (-1, -1, 2))}, {"y": ("FP32", (-1, 2))})
    x = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    theirs = x if rows_first else x.transpose(1, 0, 2)

    def run(sent: Tensors, wanted: Sequence[str]) -> Tensors:
        return {"y": sent["x"].sum(1 if rows_first else 0)}

    def given(**arrays: Any) -> Target:
        np.savez(tmp_path / "own.npz", **arrays)
        return Target(repository=tmp_path, name="m", samples=UserSamples.read(tmp_path / "own.npz"))

    own = given(x=theirs, y=x.sum(1))
    made = plain.with_samples(checkpoint, stated, run, own, lambda sent: None, rows_first=rows_first)
    assert len(made.samples) == 3
    for row, expected in zip(made.samples, x, strict=True):
        np.testing.assert_array_equal(row, expected)
    with pytest.raises(ExportError, match="y is another answer than the one given"):
        plain.with_samples(
            checkpoint, stated, run, given(x=theirs, y=x.sum(1) + 1), lambda sent: None, rows_first=rows_first
        )
