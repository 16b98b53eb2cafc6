"""Steps behind the true ones of a file of others: whether they may be there is found out by putting them there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving.signature.spec import MaskedBy, ModelSpec
from serving.signature.tensors import Tensors
from tests.support.files_of_others import Shapes, found, stated

Array = npt.NDArray[Any]
INPUTS, COUNTED = {"x": (-1, -1, 2), "count": (-1,)}, {"count": "INT64"}
LAST, EACH = {"y": (-1, 2)}, {"y": (-1, -1, 2)}


def masked(x: Array, count: Array) -> Array:
    return np.where((np.arange(x.shape[1]) < count[:, None])[:, :, None], x, 0)


def softmax(x: Array, masked_with: float, count: Array) -> Array:
    scores = np.where(np.arange(x.shape[1]) < count[:, None], x[:, :, 0], masked_with)[:, :, None]
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (weights * x).sum(axis=1) / weights.sum(axis=1)


def largest(x: Array, masked_with: float, count: Array) -> Array:
    return np.where((np.arange(x.shape[1]) < count[:, None])[:, :, None], x, masked_with).max(axis=1)


def last(x: Array, count: Array) -> Array:
    """The last true step, beside what was there before."""
    at = np.maximum(count - 1, 0)[:, None, None]
    return np.tanh(np.take_along_axis(x, at, 1)[:, 0]) + np.tanh(masked(x, count)[:, 0])


WAYS: Mapping[str, Callable[[Array, Array], Array]] = {
    "true steps alone": last,
    "each true step": lambda x, count: masked(np.tanh(x), count),
    "as many as the longest": lambda x, count: masked(np.tanh(x), count)[:, : count.max()],
    "the last step": lambda x, count: np.tanh(x[:, -1] + 1) + last(x, count),
    "the share of true steps": lambda x, count: last(x, count) * count[:, None] / x.shape[1],
    "a little of the rest": lambda x, count: last(x, count) + 1e-4 * np.exp(-abs(x)).sum(axis=1),
    "the largest, padding at -5": lambda x, count: largest(x, -5, count),
    "the largest, padding at -100": lambda x, count: largest(x, -100, count),
    "the largest, padding at -1e4": lambda x, count: largest(x, -1e4, count),
    "attention, padding at -30": lambda x, count: softmax(x, -30, count),
    "attention, padding at -1e4": lambda x, count: softmax(x, -1e4, count),
    "one number of true steps otherwise": lambda x, count: last(x, count) + (count == 11)[:, None] * x.shape[1],
    "of many steps otherwise": lambda x, count: last(x, count) * (1 + (x.shape[1] > 200)),
    "of very many steps otherwise": lambda x, count: last(x, count) + 0.1 * max(x.shape[1] - 700, 0),
    "the newest 300": lambda x, count: masked(np.tanh(x), count)[:, -300:].sum(axis=1),
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
    assert spec.masks == MaskedBy("count", "x", up_to=4096)
    assert spec.joins_lengths
    assert spec.lengths is None, "a client has to send it, as the file's own users do"


@pytest.mark.parametrize(
    ("way", "outputs"),
    [
        ("the last step", LAST),
        ("the share of true steps", LAST),
        ("a little of the rest", LAST),
        ("as many as the longest", EACH),
        ("the largest, padding at -5", LAST),
        ("the largest, padding at -100", LAST),
        ("the largest, padding at -1e4", LAST),
        ("attention, padding at -30", LAST),
        ("attention, padding at -1e4", LAST),
        ("one number of true steps otherwise", LAST),
    ],
)
def test_what_lies_there_changes_something(way: str, outputs: Shapes) -> None:
    spec = spec_of(way, outputs)
    assert not spec.joins_lengths, spec


def test_one_whole_number_a_row_in_whatever_shape() -> None:
    assert spec_of("true steps alone", inputs={"x": (-1, -1, 2), "count": (-1, 1)}).joins_lengths


def test_which_of_two_counts_it_is_nobody_says() -> None:
    def run(given: Tensors, wanted: Sequence[str]) -> Tensors:
        return {"y": last(given["x"], np.minimum(given["a"], given["b"])).astype(np.float32)}

    counts = {"a": "INT64", "b": "INT64"}
    spec = found(stated({"x": (-1, -1, 2), "a": (-1,), "b": (-1,)}, LAST, counts), run).spec
    assert spec.masks is None


@pytest.mark.parametrize(
    ("way", "up_to"),
    [("of many steps otherwise", 128), ("the newest 300", 256), ("of very many steps otherwise", 512)],
)
def test_what_holds_up_to_some_number_of_steps_is_used_up_to_there(way: str, up_to: int) -> None:
    spec = spec_of(way)
    assert spec.masks == MaskedBy("count", "x", up_to)

    def key(steps: int) -> object:
        return spec.batch_key({"x": np.zeros((1, steps, 2)), "count": np.array([1])})

    assert key(up_to) == key(5)
    assert key(up_to + 1) != key(5)
    assert key(up_to + 1) != key(up_to + 2)
