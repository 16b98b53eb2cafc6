"""How far a shadow's answer is from the client's, and that only two answers are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from serving.lifecycle.comparison import Comparison, ShadowCounts, compare
from serving.signature.tensors import Tensors
from tests.support import fake_models

CLASSES = dataclasses.replace(fake_models.spec(), labels_of="y")
PLAIN = fake_models.spec()


def rows(*values: Sequence[float]) -> Tensors:
    return {"y": np.array(values, np.float32)}


@pytest.mark.parametrize(
    ("answer", "copy", "difference", "agreeing"),
    [
        (rows([1, 2]), rows([1, 2]), 0, [True]),
        (rows([1, 2]), rows([2, 1]), 1, [False]),
        (rows([0, 0.5]), rows([0, 0.25]), 0.25, [True]),  # absolute below 1
        (rows([0, 8]), rows([0, 10]), 0.25, [True]),  # relative above
        (rows([0, 1], [4, 0], [3, 3]), rows([0, 1], [0, 4], [3, 3]), 4, [True, False, True]),
        (rows([0, np.nan]), rows([0, np.nan]), 0, [True]),
        (rows([0, 1]), rows([0, np.nan]), np.inf, [True]),
        (rows([0, 1]), {"y": np.zeros((1, 3), np.float32)}, np.inf, None),
    ],
)
def test_how_far_apart_two_answers_are(
    answer: Tensors, copy: Tensors, difference: float, agreeing: list[bool] | None
) -> None:
    found, classes = compare(answer, copy, CLASSES)
    assert found == difference
    if agreeing is not None:
        assert classes == agreeing
    assert compare(answer, copy, PLAIN) == (difference, []), "without labels there are no classes"


def test_every_output_that_was_asked_for_counts() -> None:
    answer = {"hn": np.zeros((2, 1, 4)), "y": np.zeros((2, 2))}
    assert compare(answer, answer | {"hn": np.full((2, 1, 4), 0.5)}, CLASSES) == (0.5, [True, True])
    assert compare({"hn": answer["hn"]}, answer, CLASSES) == (0.0, []), "nobody has asked for the classes"
    steps = {"y": np.zeros((2, 3, 2))}
    assert compare(steps, steps, CLASSES) == (0.0, []), "a class for every step is none for the row"


@pytest.mark.parametrize("order", [("answered", "shadow_answered"), ("shadow_answered", "answered")], ids=str)
def test_the_second_answer_hands_both_on(order: Sequence[str]) -> None:
    done: list[Comparison] = []
    comparison = Comparison(done.append, ShadowCounts())
    said = {"answered": rows([1, 2]), "shadow_answered": rows([3, 4])}
    getattr(comparison, order[0])(said[order[0]])
    assert done == []
    getattr(comparison, order[1])(said[order[1]])
    assert done == [comparison]
    assert (comparison.answer, comparison.copy) == (said["answered"], said["shadow_answered"])


@pytest.mark.parametrize("other", ["answered", "shadow_answered"])
@pytest.mark.parametrize("first", [True, False])
def test_one_answer_alone_is_compared_with_nothing(other: str, first: bool) -> None:
    """Whoever gives up has failed; the other may have answered before, or will."""
    done: list[Comparison] = []
    comparison = Comparison(done.append, ShadowCounts())
    answer = getattr(comparison, other)
    if first:
        answer(rows([1, 2]))
    comparison.give_up()
    if not first:
        answer(rows([1, 2]))
    assert done == []


def test_what_becomes_of_the_copies_is_counted() -> None:
    counts = ShadowCounts()
    counts.compared(0.25, [True, False, True])
    counts.compared(0.125, [])
    for outcome in ("dropped", "failed", "dropped"):
        counts.ended(outcome)
    assert counts.requests == {"compared": 2, "failed": 1, "dropped": 2}
    assert counts.largest_difference == 0.25
    assert counts.classes == {True: 2, False: 1}


def test_recurrent_state_of_another_size_is_not_compared() -> None:
    """A candidate with more hidden units has another state and may well give the same answer."""
    answer = {"y": np.zeros((1, 2)), "hn": np.zeros((1, 1, 4))}
    assert compare(answer, {"y": np.zeros((1, 2)), "hn": np.ones((1, 1, 8))}, PLAIN) == (0.0, [])
    assert compare(answer, {"y": np.zeros((1, 2)), "hn": np.ones((1, 1, 4))}, PLAIN) == (1.0, [])
