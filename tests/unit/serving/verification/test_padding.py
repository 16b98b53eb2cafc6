"""Steps behind the true ones of a file of others: whether they may be there is found out by putting them there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving.signature.spec import LengthsSpec, ModelSpec
from serving.signature.tensors import Tensors
from tests.support.files_of_others import Shapes, found, stated

Array = npt.NDArray[Any]
INPUTS, COUNTED = {"x": (-1, -1, 2), "count": (-1,)}, {"count": "INT64"}
LAST, EACH = {"y": (-1, 2)}, {"y": (-1, -1, 2)}


def masked(x: Array, count: Array) -> Array:
    return np.where((np.arange(x.shape[1]) < count[:, None])[:, :, None], x, 0)


WAYS: Mapping[str, Callable[[Array, Array], Array]] = {
    "true steps alone": lambda x, count: np.cumsum(masked(x, count) * np.arange(1, x.shape[1] + 1)[:, None], axis=1)[:, -1],
    "each true step": lambda x, count: masked(np.cumsum(x, axis=1), count),
    "as many as the longest": lambda x, count: masked(np.cumsum(x, axis=1), count)[:, : count.max()],
    "the last step": lambda x, count: np.tanh(x[:, -1] + 1) + np.cumsum(masked(x, count), axis=1)[:, -1],
    "the share of true steps": lambda x, count: masked(x, count).sum(axis=1) * count[:, None] / x.shape[1],
    "a little of the rest": lambda x, count: masked(x, count).cumsum(axis=1)[:, -1] + 1e-4 * np.exp(-abs(x)).sum(axis=1),
    "of many steps otherwise": lambda x, count: masked(x, count).cumsum(axis=1)[:, -1] * (1 + (x.shape[1] > 200)),
}  # fmt: skip


def spec_of(way: str, outputs: Shapes = LAST, inputs: Shapes = INPUTS, refuse: bool = False) -> ModelSpec:
    def run(given: Tensors, wanted: Sequence[str]) -> Tensors:
        x, count = given["x"], given["count"].reshape(len(given["x"]))
        if refuse and (count.min() < 1 or count.max() > x.shape[1]):
            raise ValueError("count is out of range")
        return {"y": WAYS[way](x, count).astype(np.float32)}

    return found(stated(inputs, outputs, COUNTED), run).spec


@pytest.mark.parametrize(
    ("way", "outputs"), [("true steps alone", LAST), ("each true step", EACH)], ids=["last", "each"]
)
@pytest.mark.parametrize("refuse", [False, True])
def test_what_lies_behind_the_true_steps_changes_nothing(way: str, outputs: Shapes, refuse: bool) -> None:
    spec = spec_of(way, outputs, refuse=refuse)
    assert spec.masks == LengthsSpec("count", "x")
    assert spec.joins_lengths
    assert spec.lengths is None, "a client has to send it, as the file's own users do"


@pytest.mark.parametrize(
    ("way", "outputs"),
    [
        ("the last step", LAST),
        ("the share of true steps", LAST),
        ("a little of the rest", LAST),
        ("of many steps otherwise", LAST),
        ("as many as the longest", EACH),
    ],
)
def test_what_lies_there_changes_something(way: str, outputs: Shapes) -> None:
    spec = spec_of(way, outputs)
    assert not spec.joins_lengths, spec


def test_one_whole_number_a_row_in_whatever_shape() -> None:
    assert spec_of("true steps alone", inputs={"x": (-1, -1, 2), "count": (-1, 1)}).joins_lengths


def test_which_of_two_counts_it_is_nobody_says() -> None:
    def run(given: Tensors, wanted: Sequence[str]) -> Tensors:
        return {"y": WAYS["true steps alone"](given["x"], np.minimum(given["a"], given["b"])).astype(np.float32)}

    counts = {"a": "INT64", "b": "INT64"}
    spec = found(stated({"x": (-1, -1, 2), "a": (-1,), "b": (-1,)}, LAST, counts), run).spec
    assert spec.masks is None


def test_numbers_of_true_steps_that_no_row_has_keep_the_company_of_their_own_length() -> None:
    spec = spec_of("true steps alone")

    def key(steps: int, *count: int) -> object:
        return spec.batch_key({"x": np.zeros((len(count), steps, 2)), "count": np.array(count)})

    assert key(5, 5) == key(9, 3)
    assert key(5, 1, 4) == key(9, 9, 9)
    for odd in (0, -1, 6):
        assert key(5, odd) != key(5, 5)
        assert key(5, odd) == key(5, odd)
        assert key(5, odd) != key(9, odd)
