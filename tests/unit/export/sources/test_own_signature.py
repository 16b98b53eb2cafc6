"""What is found out about a network with a signature of its own, before any file is written; networks here are functions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.errors import ExportError
from export.sources.own_signature import datatype, find, first_answers, names_of_outputs, rows_alone, told_rows
from serving.signature.tensors import Tensors
from serving.verification import inspection
from serving.verification.hints import Hints, Unclear

Arrays = Mapping[str, npt.NDArray[Any]]
X = {"x": ("FP32", (-1, -1, 2))}


def last_step(sent: Arrays) -> list[npt.NDArray[Any]]:
    return [sent["x"][:, -1]]


def test_free_sizes_are_five_and_everything_is_one_unless_it_is_said() -> None:
    seen: list[Arrays] = []

    def watched(sent: Arrays) -> list[npt.NDArray[Any]]:
        seen.append(sent)
        return [sent["x"]]

    first_answers(watched, {**X, "rate": ("INT64", ())}, Hints(), "--input")
    assert seen[0]["x"].shape == (5, 5, 2)
    assert (seen[0]["rate"].dtype, seen[0]["rate"].shape, int(seen[0]["rate"])) == (np.int64, (), 1)
    first_answers(watched, X, Hints(shapes={"x": (1, -1, 2)}, values={"x": 7}), "--input")
    np.testing.assert_array_equal(seen[-1]["x"], np.full((1, 5, 2), 7, np.float32))


def test_a_network_that_does_not_run_on_what_was_declared() -> None:
    def fixed(sent: Arrays) -> list[npt.NDArray[Any]]:
        return [sent["x"].reshape(3, 2)]

    with pytest.raises(
        ExportError, match=r"does not run on what the file says \(x:FP32\[-1, -1, 2\], tried with x \[5, 5"
    ):
        first_answers(fixed, X, Hints(), "the file")


def test_a_network_that_answers_otherwise_the_second_time() -> None:
    count = itertools.count()
    with pytest.raises(ExportError, match="answers the same inputs differently the second time"):
        first_answers(lambda sent: [sent["x"] + next(count)], X, Hints(), "--input")


@pytest.mark.parametrize("stated", [(None, (-1,)), ("FP32", None), ("BYTES", (-1,))])
def test_an_input_needs_numbers_and_a_shape(stated: tuple[str | None, tuple[int, ...] | None]) -> None:
    with pytest.raises(ExportError, match="the input x needs a datatype of numbers and a shape"):
        first_answers(last_step, {"x": stated}, Hints(), "--input")


@pytest.mark.parametrize(
    ("given", "count", "names"), [((), 1, ("y",)), ((), 3, ("y", "y1", "y2")), (("a", "b"), 2, ("a", "b"))]
)
def test_names_of_outputs(given: tuple[str, ...], count: int, names: tuple[str, ...]) -> None:
    assert names_of_outputs(given, count) == names


def test_as_many_names_as_outputs() -> None:
    with pytest.raises(ExportError, match="the network returns 1 tensors, but 2 are named: a, b"):
        names_of_outputs(("a", "b"), 1)


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "FP32"), (np.int64, "INT64"), (np.bool_, "BOOL")])
def test_datatypes_have_the_protocols_names(dtype: Any, name: str) -> None:
    assert datatype("y", np.zeros(1, dtype)) == name


def test_a_datatype_that_the_protocol_does_not_know() -> None:
    with pytest.raises(ExportError, match="the output y is of complex64, which the protocol does not know"):
        datatype("y", np.zeros(1, np.complex64))


def found(run: Any, hints: Hints | None = None) -> inspection.Findings:
    stated = inspection.unproved(X, {"y": ("FP32", (-1, -1))})
    return find(stated, run, hints or Hints())


def _last_true(sent: Tensors, _: object) -> Tensors:
    x, n = sent["x"], sent["n"][:, None]
    return {"y": np.tanh(np.take_along_axis(x, n - 1, 1)) + np.tanh(x[:, :1])}


def test_rows_that_do_not_touch_each_other_are_found() -> None:
    def run(sent: Tensors, _: object) -> Tensors:
        return {"y": sent["x"][:, -1]}

    spec = found(run).spec
    assert spec.batched
    assert told_rows(spec) == "rows proved apart, with several rows and sizes"
    counted = inspection.unproved({"x": ("FP32", (-1, -1)), "n": ("INT64", (-1,))}, {"y": ("FP32", (-1, -1))})
    told = find(counted, _last_true, Hints()).spec
    assert told_rows(told) == (
        "rows proved apart, with several rows and sizes; n proved to say how many steps of x are true, up to 4096"
    )


def test_rows_that_touch_each_other_are_taken_one_at_a_time() -> None:
    def run(sent: Tensors, _: object) -> Tensors:
        return {"y": sent["x"][:, -1] - sent["x"][:, -1].mean(axis=0)}

    seen = found(run)
    assert not seen.spec.batched
    assert told_rows(seen.spec) == (
        "one row at a time, never batched: along no axis that is free (x axis 0, x axis 1) was there an answer for each row "
        "that its own row moves and no other"
    )


def test_what_was_seen_of_rows_is_told() -> None:
    spec = dataclasses.replace(found(lambda sent, _: {"y": sent["x"][:1, 0]}).spec, source=rows_alone("2 rows get 1"))
    assert told_rows(spec) == "one row at a time, never batched: 2 rows get 1"


def test_where_every_size_is_fixed_there_is_no_axis_for_rows() -> None:
    stated = inspection.unproved({"x": ("FP32", (4, 2))}, {"y": ("FP32", (4,))})
    assert "every size of its inputs is fixed" in told_rows(
        find(stated, lambda sent, _: {"y": sent["x"].sum(1)}, Hints()).spec
    )


@pytest.mark.parametrize(("column", "refused"), [(slice(None), True), (slice(0, 1), True), (slice(0, 0), False)])
def test_a_network_that_answers_nan_to_whatever_it_is_asked_is_refused(column: slice, refused: bool) -> None:
    def run(sent: Tensors, _: object) -> Tensors:
        y = sent["x"][:, -1].copy()
        y[:, column] = np.nan
        return {"y": y}

    if not refused:
        assert found(run).spec.batched
        return
    with pytest.raises(Unclear, match=r"y holds NaN whatever is asked, .* a training that diverged"):
        found(run)
