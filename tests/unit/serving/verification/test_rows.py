"""Where the rows are, on functions that stand for a file: what keeps them apart, what does not, and what is a choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from serving.errors import RepositoryError
from serving.signature.tensors import Tensors
from serving.verification.hints import Unclear
from tests.support.files_of_others import found, running_sum, stated


def test_rows_that_may_lie_along_two_axes_are_a_choice() -> None:
    spec = stated({"x": (-1, -1)}, {"y": (-1, -1)})

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["x"] * 2}

    with pytest.raises(Unclear, match=r"rows could lie along several axes: x=0 or x=1; say which with --rows"):
        found(spec, run)
    assert found(spec, run, rows={"x": 1}).spec.inputs[0].rows_axis == 1


def test_a_hint_is_proved_too() -> None:
    with pytest.raises(RepositoryError, match="rows do touch each other along x=1"):
        found(stated({"x": (-1, -1, 4)}, {"y": (-1, -1, 4)}), running_sum(1), rows={"x": 1})


def test_rows_may_be_ruled_out() -> None:
    spec = stated({"x": (-1, -1, 4)}, {"y": (-1, -1, 4)})
    assert not found(spec, running_sum(1), rows={"x": None}).spec.batched


def test_rows_that_touch_each_other_are_no_rows() -> None:
    """A softmax over the batch, a normalisation by its mean: what changes one row changes all."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["x"] - inputs["x"].mean(axis=0)}

    assert not found(stated({"x": (-1, 4)}, {"y": (-1, 4)}), run).spec.batched


def test_many_inputs() -> None:
    shapes = {f"x{i}": (-1, 4) for i in range(40)}

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": sum(inputs.values())}  # type: ignore[dict-item]

    assert {t.rows_axis for t in found(stated(shapes, {"y": (-1, 4)}), run).spec.inputs} == {0}


def test_too_many_ways_to_read_the_inputs() -> None:
    shapes = {f"x{i}": (-1, -1) for i in range(9)}

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": sum(inputs.values()).sum(axis=0, keepdims=True)}  # type: ignore[union-attr]

    with pytest.raises(Unclear, match=r"too many ways to read 9 inputs.*--rows INPUT=AXIS"):
        found(stated(shapes, {"y": (-1, -1)}), run)


def test_an_input_with_a_free_axis_is_shared_only_if_a_person_says_so() -> None:
    """Else a mask of which only `any` counts would be taken for one mask of all rows."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": np.cumsum(inputs["x"], axis=1) * inputs["scale"].mean()}

    spec = stated({"x": (-1, -1), "scale": (-1, 4)}, {"y": (-1, -1)})
    assert not found(spec, run).spec.batched
    assert found(spec, run, rows={"scale": None}).spec.shared == {"scale"}


def test_rows_that_touch_each_other_only_in_larger_batches() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x = inputs["x"]
        return {"y": x if len(x) < 4 else x + x.max()}

    assert not found(stated({"x": (-1, 4)}, {"y": (-1, 4)}), run).spec.batched


@pytest.mark.parametrize(
    "together",
    [
        lambda x: np.log(x) - np.log(x).mean(),
        lambda x: 1e-6 * (x - x.mean(axis=0)),
        lambda x: x + np.maximum(x - 100, 0).mean(),
        lambda x: np.round(x / np.abs(x).max() * 127) * np.abs(x).max() / 127,
    ],
    ids=["numbers for positive values only", "tiny answers", "large values only", "quantised by the largest"],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in log:RuntimeWarning")
def test_rows_that_touch_each_other_for_some_values(together: Callable[[np.ndarray], np.ndarray]) -> None:  # type: ignore[type-arg]
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": together(inputs["x"]).astype(np.float32)}

    assert not found(stated({"x": (-1, 4)}, {"y": (-1, 4)}), run).spec.batched


def test_tokens_that_count_the_padding_of_the_batch() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": (inputs["x"] + (inputs["x"] == 0).sum()).astype(np.float32)}

    assert not found(stated({"x": (-1, 4)}, {"y": (-1, 4)}, {"x": "INT64"}), run).spec.batched


def test_rows_of_an_input_that_always_holds_the_same_cannot_be_told_apart() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["x"] * inputs["mask"].sum(axis=0)}

    spec = stated({"x": (-1, 4), "mask": (-1, 4)}, {"y": (-1, 4)})
    assert found(spec, run, values={"mask": 1}).spec.inputs[1].rows_axis is None


def test_an_answer_that_knows_its_place_in_the_batch() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["x"] + np.arange(len(inputs["x"]), dtype=np.float32)[:, None]}

    assert not found(stated({"x": (-1, 4)}, {"y": (-1, 4)}), run).spec.batched


def test_an_output_without_rows_belongs_to_nobody() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["x"], "norm": np.float32(1)}

    result = found(stated({"x": (-1, 4)}, {"y": (-1, 4), "norm": ()}), run)
    assert not result.spec.batched
    assert result.spec.shown_shape(result.spec.outputs[1]) == (1,)


def test_rows_that_move_their_answers_only_as_in_use_are_found_with_samples() -> None:
    """A pressure about 1013: whatever is far from that gets the same answer."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        near = np.exp(-np.square(inputs["x"].astype(np.float64) - 1013)) > 1e-9
        return {"y": np.cumsum(near * (inputs["x"] - 1013), axis=1, dtype=np.float32)}

    spec = stated({"x": (-1, -1, 2)}, {"y": (-1, -1, 2)})
    assert not found(spec, run).spec.batched
    sample = 1013 + np.random.default_rng(0).normal(0, 1, (1, 12, 2)).astype(np.float32)
    assert found(spec, run, samples=[{"x": sample}]).spec.batched
