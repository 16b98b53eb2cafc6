"""What a file is tried with: sizes, whole numbers, ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from serving.backends.base import Contents
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.verification.hints import Hints, Unclear
from serving.verification.inspection import inspect
from serving.verification.trials import Run, Trials
from tests.support.files_of_others import found, stated


def test_an_input_that_is_free_everywhere() -> None:
    with pytest.raises(Unclear, match=r"x has too many free axes to be tried.*--shape x:SIZES"):
        found(stated({"x": (-1,) * 7}, {"y": (-1,)}), lambda given, wanted: {})


def only(size: int) -> Run:
    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        if inputs["x"].shape[1] != size:
            raise ValueError(f"I take {size}\nand this is my stack")
        return {"y": inputs["x"][:, :1]}

    return run


def test_a_size_that_only_seems_free() -> None:
    spec = stated({"x": (-1, -1)}, {"y": (-1, 1)})
    with pytest.raises(
        Unclear, match=r"could not be run on anything.*I take 576; it runs with 576 along them; .*--shape x:-1,SIZE, "
    ) as raised:
        found(spec, only(576))
    with pytest.raises(
        Unclear, match=r"I take 577; state the size that it was made for with --shape x:-1,SIZE, -1 where free"
    ):
        found(spec, only(577))
    assert "my stack" not in str(raised.value)
    with pytest.raises(Unclear, match=r"does not take every size that it calls free: with 5 along those of x"):
        found(spec, only(24))
    assert found(spec, only(576), shapes={"x": (-1, 576)}).spec.inputs[0].shape == (-1, 576)


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
    assert {int(count) for sample in result.samples for count in sample.inputs["counts"].ravel()} == set(range(10))


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


SPEC = stated({"x": (-1, -1, 4), "mask": (-1, -1), "count": (-1, -1)}, {"y": (-1,)}, {"mask": "BOOL", "count": "INT32"})
ROWS_OF = {"x": 1, "mask": 0, "count": None}


def trials(spec: ModelSpec = SPEC, **values: float) -> Trials:
    shapes = {tensor.name: tensor.file_shape for tensor in spec.inputs}
    return Trials(spec, shapes, lambda inputs, outputs: inputs, Hints(values=values))


def test_what_is_sent_has_the_rows_where_they_are_said_to_be() -> None:
    sent = trials().sent(ROWS_OF, 3, 5)
    assert {name: array.shape for name, array in sent.items()} == {"x": (5, 3, 4), "mask": (3, 5), "count": (5, 5)}
    assert [array.dtype for array in sent.values()] == [np.float32, np.bool_, np.int32]


def test_lengths_are_drawn_from_one_to_the_number_of_steps_and_all_different() -> None:
    """Rows of one length hide what depends on the longest, and rows of length 0 are refused, which proves nothing."""
    spec = stated({"x": (-1, -1, 4), "n": (-1,)}, {"y": (-1,)}, {"n": "INT64"})
    sent = trials(spec).sent({"x": 0, "n": 0}, 8, 24)["n"]
    assert len(set(sent)) == 8
    assert (sent.min() >= 1, sent.max() <= 24) == (True, True)
    assert set(trials(spec).sent({"x": 0, "n": 0}, 8, 24, full=True)["n"]) == {24}


def test_floats_that_are_read_as_whole_numbers_are_ids() -> None:
    """A SavedModel of Keras 2 takes the ids of its Embedding as floats."""
    table = np.random.default_rng(0).normal(size=(37, 2)).astype(np.float32)

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        ids = inputs["ids"].astype(np.int32)
        if ids.min() < 0 or ids.max() >= len(table):
            raise ValueError("an id is outside the table")
        return {"y": np.cumsum(table[ids], axis=1)}

    spec = found(stated({"ids": (-1, -1)}, {"y": (-1, -1, 2)}), run).spec
    assert (spec.batched, spec.vocabulary) == (True, 37)


def test_strings_are_tried_with_what_the_file_knows() -> None:
    """Whatever else is sent, a table of words gives the same answer to."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        known = np.vectorize({b"north": 1.0, b"south": 2.0}.get, otypes=[np.float32])
        return {"y": known(inputs["word"], 0.0)}

    spec = stated({"word": (-1, 1)}, {"y": (-1, 1)}, {"word": "BYTES"})
    assert not found(spec, run).spec.batched
    assert inspect(spec, run, Hints(), Contents(texts=["north", "south"])).spec.batched


def test_strings_that_a_file_casts_are_numbers() -> None:
    shapes = dict.fromkeys(("cast", "words"), (-1, 3))
    spec = stated(shapes, {"y": (-1, 3)}, dict.fromkeys(shapes, "BYTES"))

    def run(inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        return {"y": inputs["cast"].astype(str).astype(np.float32) + (inputs["words"] == b"word")}

    made = Trials(spec, shapes, run, Hints(), Contents())
    made.learn()
    drawn = [made.sent({"cast": 0, "words": 0}, 8, 5) for _ in range(4)]
    assert all(run(sent, ["y"])["y"].shape == (8, 3) for sent in drawn)
    assert {b"a", b"word"} & {text for sent in drawn for text in sent["words"].flat}
    assert found(spec, run).spec.batched


def test_a_row_is_made_anew_and_no_other() -> None:
    made = trials()
    before = made.sent(ROWS_OF, 3, 5)
    after = made.again(ROWS_OF, before, 2, 5)
    np.testing.assert_array_equal(after["x"][:, :2], before["x"][:, :2])
    assert not np.any(after["x"][:, 2] == before["x"][:, 2])


def test_what_a_person_says_is_held_everywhere() -> None:
    sent = trials(x=0.5, count=7).sent(ROWS_OF, 3, 5)
    assert (np.unique(sent["x"]).tolist(), np.unique(sent["count"]).tolist()) == ([0.5], [7])


def test_rows_out_of_samples_are_brought_to_the_size_that_is_tried() -> None:
    spec = stated({"x": (-1, -1, 4)}, {"y": (-1,)})
    sample = np.arange(2 * 3 * 4, dtype=np.float32).reshape(3, 2, 4)  # 3 steps of 2 rows
    made = Trials(spec, {"x": (-1, -1, 4)}, lambda inputs, outputs: inputs, Hints(samples=[{"x": sample}]))
    first, second = (row["x"] for row in made.rows_in_use({"x": 1}, 5))
    np.testing.assert_array_equal(first, sample[[0, 1, 2, 0, 1], 0])
    np.testing.assert_array_equal(second, sample[[0, 1, 2, 0, 1], 1])


@pytest.mark.parametrize(
    ("shape", "datatype", "message"),
    [
        ((), "FP32", "the input x is one value for all rows; say what to try the file with: --value x=..."),
        ((-1,), "BF16", "nothing can be tried on the input x of BF16; say what it holds: --value x=..."),
    ],
)
def test_what_cannot_be_tried(shape: tuple[int, ...], datatype: str, message: str) -> None:
    spec = stated({"x": shape}, {"y": (-1,)}, {"x": datatype})
    with pytest.raises(Unclear) as raised:
        trials(spec).sent({"x": None}, 3, 5)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        ({"x": 0, "mask": 0, "count": 0}, [(n, s) for n in (3, 2, 1) for s in (5, 9, 24)]),
        (None, [(5, 5), (9, 9), (24, 24)]),
    ],
    ids=["rows", "no rows"],
)
def test_every_number_of_rows_and_every_size_is_tried(
    rows: dict[str, int | None] | None, sizes: list[tuple[int, int]]
) -> None:
    assert [sent["x"].shape[:2] for sent, _ in trials().answers(rows)] == sizes
