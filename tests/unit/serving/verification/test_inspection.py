"""What is found out about a foreign file, on functions that stand for one: names, state, and where the rows are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from serving.backends.rows_first import LaidOutBackend
from serving.errors import RepositoryError
from serving.signature.spec import StatePair
from serving.signature.tensors import Tensors
from serving.verification import inspection
from serving.verification.inspection import Hints, Unclear, inspect, unproved

Shapes = Mapping[str, tuple[int, ...]]


def stated(inputs: Shapes, outputs: Shapes, datatypes: Mapping[str, str] | None = None) -> inspection.ModelSpec:
    kinds = datatypes or {}
    return unproved(*({n: (kinds.get(n, "FP32"), s) for n, s in side.items()} for side in (inputs, outputs)))


def running_sum(steps: int) -> inspection.Run:
    """A recurrent function along the axis of the steps of `x`, from the state `h` `[1, rows, 4]` if there is one."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x = inputs["x"]
        sums = np.cumsum(x, axis=steps)
        answers = {"y": sums}
        if "h" in inputs:
            last = np.take(sums, -1, axis=steps)  # [rows, 4]
            answers = {"y": sums + np.expand_dims(inputs["h"][0], steps), "hn": inputs["h"] + last[None]}
        return {name: answers[name] for name in outputs}

    return run


def found(spec: inspection.ModelSpec, run: inspection.Run, **said: object) -> inspection.Findings:
    return inspect(spec, run, Hints(**said))  # type: ignore[arg-type]


@pytest.mark.parametrize(("steps", "rows"), [(1, 0), (0, 1)])
def test_rows_first_and_time_first(steps: int, rows: int) -> None:
    result = found(stated({"x": (-1, -1, 4)}, {"y": (-1, -1, 4)}), running_sum(steps))
    assert result.spec.batched
    assert [(t.shape, t.rows_axis) for t in (*result.spec.inputs, *result.spec.outputs)] == [((-1, -1, 4), rows)] * 2
    for sample in result.samples:
        np.testing.assert_allclose(sample.outputs["y"], np.cumsum(sample.inputs["x"], axis=1), rtol=0, atol=1e-6)


def test_a_state_whose_rows_are_elsewhere() -> None:
    spec = stated({"x": (-1, -1, 4), "h": (1, -1, 4)}, {"y": (-1, -1, 4), "hn": (-1, -1, -1)})
    result = found(spec, running_sum(1)).spec
    assert result.state == (StatePair("h", "hn"),)
    assert result.streamable
    assert {t.name: (t.shape, t.rows_axis) for t in (*result.inputs, *result.outputs)} == {
        "x": ((-1, -1, 4), 0),
        "h": ((-1, 1, 4), 1),
        "y": ((-1, -1, 4), 0),
        "hn": ((-1, 1, 4), 1),
    }


def test_one_row_at_a_time() -> None:
    spec = stated({"x": (-1, 4), "h": (1, 1, 4)}, {"y": (-1, 4), "hn": (1, 1, 4)})

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        sums = np.cumsum(inputs["x"], axis=0) + inputs["h"][0]
        return {"y": sums, "hn": sums[-1][None, None]}

    result = found(spec, run)
    assert not result.spec.batched
    assert {t.name: result.spec.shown_shape(t) for t in (*result.spec.inputs, *result.spec.outputs)} == {
        "x": (-1, 4),
        "h": (1, 1, 4),
        "y": (-1, 4),
        "hn": (1, 1, 4),
    }
    assert all(len(array) == 1 for sample in result.samples for array in sample.inputs.values())


def test_a_value_that_all_rows_share() -> None:
    spec = stated({"x": (-1, 4), "rate": ()}, {"y": (-1, 4)}, {"rate": "INT64"})

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        assert inputs["rate"] == 16000
        return {"y": inputs["x"] * inputs["rate"]}

    with pytest.raises(Unclear, match=r"rate is one value for all rows.*--value rate="):
        found(spec, run)
    result = found(spec, run, values={"rate": 16000})
    assert result.spec.shared == {"rate"}
    (x, rate) = result.spec.inputs
    assert (result.spec.shown_shape(x), result.spec.shown_shape(rate)) == ((-1, 4), (-1, 1))

    class File:
        def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            return run(inputs, outputs)

        def close(self) -> None: ...

    for sample in result.samples:  # what is kept can be replayed through the server's own layout
        assert len(sample.inputs["rate"]) == len(sample.inputs["x"])
        got = LaidOutBackend(File(), result.spec).run(sample.inputs, ["y"])["y"]
        np.testing.assert_array_equal(got, sample.outputs["y"])


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


def test_an_input_that_is_free_everywhere() -> None:
    with pytest.raises(Unclear, match=r"x has too many free axes to be tried.*--shape x:SIZES"):
        found(stated({"x": (-1,) * 7}, {"y": (-1,)}), lambda given, wanted: {})


def test_many_inputs_are_read_in_the_likeliest_way_first() -> None:
    shapes = {f"x{i}": (-1, 4) for i in range(40)}

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": sum(inputs.values())}  # type: ignore[dict-item]

    assert {t.rows_axis for t in found(stated(shapes, {"y": (-1, 4)}), run).spec.inputs} == {0}

    def mixed(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": run(inputs, outputs)["y"].sum(axis=0, keepdims=True) + inputs["x0"]}

    with pytest.raises(Unclear, match=r"too many ways to read 40 inputs.*--rows INPUT=AXIS"):
        found(stated(shapes, {"y": (-1, 4)}), mixed)


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


def only(size: int) -> inspection.Run:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        if inputs["x"].shape[1] != size:
            raise ValueError(f"I take {size}\nand this is my stack")
        return {"y": inputs["x"][:, :1]}

    return run


def test_a_size_that_only_seems_free() -> None:
    spec = stated({"x": (-1, -1)}, {"y": (-1, 1)})
    with pytest.raises(Unclear, match=r"could not be run on anything.*I take 576; .*--shape NAME:SIZES") as raised:
        found(spec, only(576))
    assert "my stack" not in str(raised.value)
    with pytest.raises(Unclear, match=r"does not take every size that it calls free: with 5 along those of x"):
        found(spec, only(24))
    assert found(spec, only(576), shapes={"x": (-1, 576)}).spec.inputs[0].shape == (-1, 576)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"shapes": {"z": (1,)}}, "there is no input 'z'; the file has x"),
        ({"shapes": {"x": (-1, 5)}}, r"\[-1, 5\] of x does not fit the file's, \[-1, -1, 4\]"),
        ({"rows": {"x": 3}}, "x has no axis 3"),
        ({"state": {"x": "z"}}, "there is no output 'z'"),
        ({"state": {"x": "n"}}, r"n cannot be the next value of x: it is FP32 \[-1\], and that is FP32 \[-1, -1, 4\]"),
    ],
)
def test_hints_that_do_not_fit(said: Mapping[str, object], message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        found(stated({"x": (-1, -1, 4)}, {"y": (-1, -1, 4), "n": (-1,)}), running_sum(1), **said)


@pytest.mark.parametrize(
    ("inputs", "outputs", "pairs"),
    [
        (("x", "h0", "c0"), ("y", "hn", "cn"), {"h0": "hn", "c0": "cn"}),
        (("x", "c0", "h0"), ("y", "hn", "cn"), {"h0": "hn", "c0": "cn"}),  # never by order
        (("x", "h_in", "c_in"), ("c_out", "h_out", "y"), {"h_in": "h_out", "c_in": "c_out"}),
        (("input", "state"), ("output", "stateN"), {"state": "stateN"}),
        (("input", "hiddenState"), ("output", "newHiddenState"), {"hiddenState": "newHiddenState"}),
        (("x", "encoder_h"), ("y", "next_encoder_h"), {"encoder_h": "next_encoder_h"}),
        (("input",), ("output",), {}),
        (("a",), ("b",), {}),
    ],
)
def test_state_is_paired_by_name(inputs: Sequence[str], outputs: Sequence[str], pairs: Mapping[str, str]) -> None:
    spec = stated(dict.fromkeys(inputs, (-1, 4)), dict.fromkeys(outputs, (-1, 4)))

    def run(given: Tensors, wanted: Sequence[str]) -> Tensors:
        return {name: sum(given.values()) for name in wanted}  # type: ignore[misc]

    assert {pair.input: pair.output for pair in found(spec, run).spec.state} == pairs


def test_a_pair_must_be_of_one_shape() -> None:
    spec = stated({"h0": (-1, 4)}, {"hn": (-1, 5)})
    assert found(spec, lambda given, wanted: {"hn": np.repeat(given["h0"][:, :1], 5, axis=1)}).spec.state == ()


def test_names_that_leave_it_open() -> None:
    spec = stated({"x": (-1, 4), "h": (-1, 4), "h0": (-1, 4)}, {"y": (-1, 4), "hn": (-1, 4)})

    def run(given: Tensors, wanted: Sequence[str]) -> Tensors:
        return {name: sum(given.values()) for name in wanted}  # type: ignore[misc]

    with pytest.raises(Unclear, match=r"inputs h, h0, outputs hn; say it with --state INPUT=OUTPUT"):
        found(spec, run)
    assert found(spec, run, state={"h": "hn"}).spec.state == (StatePair("h", "hn"),)
    assert found(spec, run, state={}).spec.state == ()


@pytest.mark.parametrize(("datatype", "shape"), [(None, (-1,)), ("FP32", None)])
def test_what_is_not_stated_is_not_guessed(datatype: str | None, shape: tuple[int, ...] | None) -> None:
    with pytest.raises(Unclear, match="nothing says of what datatype and shape x is"):
        unproved({"x": (datatype, shape)}, {"y": ("FP32", (-1,))})


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J"])
def test_names_that_no_client_could_write(name: str) -> None:
    with pytest.raises(RepositoryError, match="which no client could write"):
        unproved({"x": ("FP32", (-1,))}, {name: ("FP32", (-1,))})


@pytest.mark.parametrize("lines", [3, 8, 50])
def test_ids_are_drawn_from_the_whole_table_that_they_lead_to(lines: int) -> None:
    """Else a file whose table is wrong in a line that no sample reads would be called verified."""
    table = np.random.default_rng(0).normal(size=(lines, 2)).astype(np.float32)

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": np.cumsum(table[inputs["ids"]], axis=1)}

    result = found(stated({"ids": (-1, -1)}, {"y": (-1, -1, 2)}, {"ids": "INT64"}), run)
    assert result.spec.vocabulary == lines
    assert {int(token) for sample in result.samples for token in sample.inputs["ids"].ravel()} == set(range(lines))


def test_whole_numbers_that_lead_to_no_table_stay_small() -> None:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": np.cumsum(inputs["counts"], axis=1).astype(np.float32)}

    result = found(stated({"counts": (-1, -1)}, {"y": (-1, -1)}, {"counts": "INT8"}), run)
    assert result.spec.vocabulary == 0
    assert {int(count) for sample in result.samples for count in sample.inputs["counts"].ravel()} == {1, 2}


def test_lengths_are_no_ids() -> None:
    """They are bounded by the number of steps, another one for other sizes."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        x, lengths = inputs["x"], inputs["lengths"]
        if lengths.min() < 1 or lengths.max() > x.shape[1]:
            raise ValueError("lengths out of range")
        return {"y": np.take_along_axis(np.cumsum(x, axis=1), lengths - 1, axis=1)}

    spec = stated({"lengths": (-1, 1), "x": (-1, -1)}, {"y": (-1, 1)}, {"lengths": "INT64"})
    result = found(spec, run)
    assert (result.spec.batched, result.spec.vocabulary) == (True, 0)
