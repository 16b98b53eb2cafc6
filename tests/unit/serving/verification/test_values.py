"""What a row holds in a trial: the kinds that have shown rows that touch, for every datatype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from serving.signature.tensors import DTYPES
from serving.verification import values
from serving.verification.values import HEAD, HOLE, TAIL, Holding, Kind, draw, kinds

NAN = float("nan")


def drawn(kind: Kind, datatype: str = "FP32", sizes: Sequence[int] = (6, 3), true: int | None = 4, **known: Any) -> Any:
    return draw(np.random.default_rng(3), Holding(dtype=DTYPES[datatype], **known), sizes, kind, true, 6)


def shown(array: npt.NDArray[Any], marker: float) -> list[bool]:
    """Which steps hold nothing but the marker."""
    flat = array.reshape(len(array), -1)
    return [bool(np.array_equal(step, np.full_like(step, marker), equal_nan=step.dtype.kind == "f")) for step in flat]


@pytest.mark.parametrize("marker", [0.0, NAN, -999.0, float("inf")])
@pytest.mark.parametrize(
    ("place", "where"),
    [(TAIL, [False] * 4 + [True] * 2), (HEAD, [True] * 2 + [False] * 4)],
)
def test_a_marker_stands_behind_the_true_steps_or_before_them(place: str, where: list[bool], marker: float) -> None:
    assert shown(drawn(Kind(place=place, marker=marker)), marker) == where


def test_a_marker_within_and_a_marker_everywhere() -> None:
    assert sum(shown(drawn(Kind(place=HOLE)), 0)) == 1
    assert all(shown(drawn(Kind(place=values.EVERYWHERE, marker=NAN)), NAN))


@pytest.mark.parametrize("body", values.BODIES)
@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT8", "INT64", "UINT8", "BOOL", "BYTES"])
def test_every_body_in_every_datatype(body: str, datatype: str) -> None:
    array = drawn(Kind(body), datatype)
    assert (array.shape, array.dtype) == ((6, 3), DTYPES[datatype])


@pytest.mark.parametrize("kind", kinds(), ids=str)
def test_ids_stay_within_their_table(kind: Kind) -> None:
    """A refusal proves nothing: a marker becomes an id that may be special, the first or the last."""
    array = drawn(kind, "INT64", ids=5)
    assert set(np.unique(array)) <= set(range(5))


def test_markers_of_ids() -> None:
    assert shown(drawn(Kind(place=TAIL, marker=0), "INT64", ids=5), 0)[4:] == [True] * 2
    assert shown(drawn(Kind(place=TAIL, marker=-1), "INT64", ids=5), 4)[4:] == [True] * 2


@pytest.mark.parametrize(("true", "counted"), [(4, {4}), (6, {6})])
def test_lengths_say_how_many_steps_are_true(true: int, counted: set[int]) -> None:
    assert set(drawn(Kind(), "INT64", (), true, counts=True).ravel()) == counted


def test_lengths_of_nobody_knows_how_many_rows() -> None:
    array = drawn(Kind(), "INT64", (50,), None, counts=True)
    assert (array.min(), array.max()) == (1, 6)


def test_a_mask_is_true_as_far_as_the_row_is() -> None:
    assert drawn(Kind(place=TAIL), "BOOL", (6,)).tolist() == [True] * 4 + [False] * 2


def test_floats_that_hold_whole_numbers() -> None:
    array = drawn(Kind(), "FP32", whole=True, ids=9)
    np.testing.assert_array_equal(array, np.round(array))


def test_the_constants_of_a_file_are_markers_and_thresholds() -> None:
    own = [kind for kind in kinds([7.25, 7.25, 0.0, NAN]) if kind not in kinds()]
    assert own == [Kind(place=TAIL, marker=7.25), Kind(values.CONSTANT, values.EVERYWHERE, 7.25 * 1.01)]
    assert len(kinds(range(1000))) < 120


def test_a_persons_own_values_keep_theirs_before_the_marker() -> None:
    own = np.arange(6, dtype=np.float32)
    made = values.placed(np.random.default_rng(0), own, Kind(place=TAIL), 0.5)
    assert made.tolist() == [0, 1, 2, 0, 0, 0]
    assert own.tolist() == [0, 1, 2, 3, 4, 5]
