"""Which axis holds the steps of a file of others: found where it is certain, and else not claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from serving.signature.tensors import Tensors
from serving.verification import steps
from serving.verification.trials import Run
from tests.support.files_of_others import Shapes, found, running_sum, stated


def axes(inputs: Shapes, outputs: Shapes, run: Run, **said: object) -> dict[str, int]:
    """The axis of steps of each tensor that has one, the rows in front."""
    spec = found(stated(inputs, outputs), run, **said).spec
    return {t.name: t.steps_axis for t in (*spec.inputs, *spec.outputs) if t.steps_axis is not None}


def of_x(answer: Mapping[str, str]) -> Run:
    """A file that makes its outputs of `x` `[rows, steps, 4]`, each row alone, in one of the ways below."""
    ways = {
        "each step": lambda x: np.cumsum(x, axis=1),
        "the last step": lambda x: np.cumsum(x, axis=1)[:, -1],
        "turned": lambda x: np.cumsum(x, axis=1).transpose(0, 2, 1),
        "one step more": lambda x: np.cumsum(np.concatenate([x, x[:, :1]], axis=1), axis=1),
        "every step with every other": lambda x: np.einsum("rsf,rtf->rst", np.cumsum(x, axis=1), x),
        "always five": lambda x: np.repeat(np.cumsum(x, axis=1)[:, -1:], 5, axis=1),
    }

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {name: ways[answer[name]](inputs["x"]) for name in outputs}

    return run


@pytest.mark.parametrize(("steps_first", "rows"), [(False, 0), (True, 1)])
def test_rows_first_and_time_first(steps_first: bool, rows: int) -> None:
    """Ours is one order of axes, whatever the file's is."""
    shapes = {"x": (-1, -1, 4)}, {"y": (-1, -1, 4)}
    assert axes(*shapes, running_sum(0 if steps_first else 1), rows={"x": rows}) == {"x": 1, "y": 1}


@pytest.mark.parametrize(
    ("way", "shape", "axis"),
    [
        ("each step", (-1, -1, 4), 1),
        ("turned", (-1, 4, -1), 2),
        ("the last step", (-1, 4), None),
        ("one step more", (-1, -1, 4), None),
        ("every step with every other", (-1, -1, -1), None),  # two axes are as long
        ("always five", (-1, -1, 4), None),  # as long as the shortest trial, by chance
    ],
)
def test_the_steps_of_an_output_are_as_many_as_went_in(way: str, shape: tuple[int, ...], axis: int | None) -> None:
    told = axes({"x": (-1, -1, 4)}, {"y": shape}, of_x({"y": way}))
    assert told == ({"x": 1} if axis is None else {"x": 1, "y": axis})


def test_one_row_at_a_time_has_steps_too() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": np.cumsum(inputs["x"], axis=0)}

    assert axes({"x": (-1, 4)}, {"y": (-1, 4)}, run) == {"x": 1, "y": 1}


def test_inputs_that_must_be_equally_long_are_one_sequence() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": np.cumsum(inputs["x"] * inputs["gain"], axis=1)}

    assert axes({"x": (-1, -1, 4), "gain": (-1, -1, 1)}, {"y": (-1, -1, 4)}, run) == {"x": 1, "gain": 1, "y": 1}


def test_inputs_that_may_be_of_unequal_length_are_not_claimed() -> None:
    """A sequence and what it is read with: nobody but a person knows whose steps an output has."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": np.cumsum(inputs["x"], axis=1) + inputs["context"].sum(axis=1, keepdims=True)}

    assert axes({"x": (-1, -1, 4), "context": (-1, -1, 4)}, {"y": (-1, -1, 4)}, run) == {}


def test_several_free_axes_are_not_claimed() -> None:
    """Which of them is time: the file does not say."""
    assert axes({"x": (-1, -1, -1)}, {"y": (-1, -1, -1)}, running_sum(1), rows={"x": 0}) == {}


def test_a_state_of_fixed_size_has_no_steps() -> None:
    told = axes({"x": (-1, -1, 4), "h": (1, -1, 4)}, {"y": (-1, -1, 4), "hn": (-1, -1, -1)}, running_sum(1))
    assert told == {"x": 1, "y": 1}


@pytest.mark.parametrize(
    ("why", "lengths", "shapes", "axis"),
    [
        ("as long every time", (5, 9), [(3, 5, 2), (3, 9, 2)], 1),
        ("as long once", (5, 9), [(3, 5, 2), (3, 5, 2)], None),
        ("two are as long", (5, 9), [(5, 5), (9, 9)], None),
        ("one length proves nothing", (5, 5), [(3, 5), (2, 5)], None),
        ("a scalar", (5, 9), [(), ()], None),
    ],
)
def test_the_axis_of_an_output(
    why: str, lengths: Sequence[int], shapes: Sequence[tuple[int, ...]], axis: int | None
) -> None:
    answers = [({"x": np.zeros((3, n))}, {"y": np.zeros(shape)}) for n, shape in zip(lengths, shapes, strict=True)]
    assert steps.output_axis("y", {"x": 1}, answers) == axis, why
    assert steps.output_axis("y", {}, answers) is None, "no input has steps"


def with_state(y: str) -> Run:
    """A recurrent file with a state, whose `y` is made of its steps in one of the ways below."""
    ways = {
        "each step": lambda h: h,
        "the last step": lambda h: h[:, -1],
        "the mean of what it was given": lambda h: h.mean(axis=1),
        "the largest so far, within what it was given": lambda h: np.maximum.accumulate(h, axis=1),
        "each step, less what comes after": lambda h: h - h[:, ::-1].cumsum(axis=1)[:, ::-1],
        "each step, by its number": lambda h: h * np.arange(1, h.shape[1] + 1)[None, :, None],
    }

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        h = inputs["h"]
        made = []
        for step in range(inputs["x"].shape[1]):
            h = np.tanh(inputs["x"][:, step] + 0.5 * h)
            made.append(h)
        answers = {"y": ways[y](np.stack(made, axis=1)), "hn": h}
        if "n" in inputs:
            answers["y"] = answers["y"] * (np.arange(len(made)) < inputs["n"][:, None])[:, :, None]
        return {name: answers[name].astype(np.float32) for name in outputs}

    return run


@pytest.mark.parametrize(
    ("y", "streams"),
    [
        ("each step", True),
        ("the last step", True),
        ("the mean of what it was given", False),
        ("the largest so far, within what it was given", False),
        ("each step, less what comes after", False),
        ("each step, by its number", False),
    ],
)
def test_a_state_is_not_enough_to_go_on_with(y: str, streams: bool) -> None:
    """A file is streamable if its sequences may be cut anywhere; that it has a state says that they may be cut somewhere."""
    shapes = {"x": (-1, -1, 4), "h": (-1, 4)}, {"y": (-1, -1, 4) if "step" in y[:5] else (-1, 4), "hn": (-1, 4)}
    spec = found(stated(*shapes), with_state(y)).spec
    assert [(pair.input, pair.output) for pair in spec.state] == [("h", "hn")]
    assert spec.streamable is streams


@pytest.mark.parametrize("special", ["more than fifty steps", "a gap"])
def test_what_many_steps_or_a_gap_change_is_not_streamable(special: str) -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x = inputs["x"]
        many, gap = x.shape[1] > 50, np.isnan(x).any(axis=(1, 2), keepdims=True)
        x = np.nan_to_num(x) * np.where(gap if special == "a gap" else many, np.float32(0.5), np.float32(1))
        y = np.cumsum(x, axis=1) + inputs["h"][:, None]
        return {name: {"y": y, "hn": y[:, -1]}[name] for name in outputs}

    assert not found(stated({"x": (-1, -1, 4), "h": (-1, 4)}, {"y": (-1, -1, 4), "hn": (-1, 4)}), run).spec.streamable


def test_lengths_go_with_the_pieces() -> None:
    spec = stated({"x": (-1, -1, 4), "h": (-1, 4), "n": (-1,)}, {"y": (-1, -1, 4), "hn": (-1, 4)}, {"n": "INT64"})
    assert found(spec, with_state("each step")).spec.streamable


def test_a_file_of_one_size_is_asked_piece_by_piece_anyway() -> None:
    spec = stated({"x": (-1, 8, 4), "h": (-1, 4)}, {"y": (-1, 4), "hn": (-1, 4)})
    assert found(spec, with_state("the mean of what it was given")).spec.streamable


def test_without_a_state_there_is_nothing_to_go_on_from() -> None:
    assert not found(stated({"x": (-1, -1, 4)}, {"y": (-1, -1, 4)}), running_sum(1)).spec.streamable


def test_pieces_whose_answers_do_not_fit_together_are_no_whole() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        answers = with_state("each step")(inputs, ["y", "hn"])
        wide = np.repeat(answers["y"], 1 + (inputs["x"].shape[1] < 3), axis=2)  # twice as wide for a short piece
        return {"y": wide, "hn": answers["hn"]}

    spec = found(stated({"x": (-1, -1, 4), "h": (-1, 4)}, {"y": (-1, -1, -1), "hn": (-1, 4)}), run).spec
    assert [(pair.input, pair.output) for pair in spec.state] == [("h", "hn")]
    assert not spec.streamable
