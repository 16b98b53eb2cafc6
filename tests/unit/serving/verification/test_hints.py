"""What a person may say of a file must be of its inputs and outputs."""

from __future__ import annotations

import pytest

from serving.errors import RepositoryError
from serving.signature.tensors import DTYPES
from serving.verification.hints import Hints, check, value_for
from tests.support.files_of_others import stated

SPEC = stated({"x": (-1, -1, 4), "rate": ()}, {"y": (-1, -1, 4), "n": (-1,)})


@pytest.mark.parametrize(
    "hints",
    [
        Hints(),
        Hints(shapes={"x": (-1, 7, 4)}, values={"rate": 16000}, rows={"x": 1, "rate": None}, state={"x": "y"}),
        Hints(
            shapes={"x": (-1, -1, 4)}, rows={"x": 2}, state={}
        ),  # an axis that is not free is for the proof to refuse
    ],
    ids=["nothing", "everything", "no more than the file says"],
)
def test_hints_that_fit(hints: Hints) -> None:
    check(SPEC, hints)


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        (Hints(shapes={"z": (1,)}), "there is no input 'z'; the file has x, rate"),
        (Hints(values={"z": 1}), "there is no input 'z'"),
        (Hints(values={"rate": "fast"}), "rate is FP32, and 'fast' is no number; write --value rate=NUMBER"),
        (Hints(rows={"y": 0}), "there is no input 'y'"),
        (Hints(state={"z": "y"}), "there is no input 'z'"),
        (Hints(state={"x": "z"}), "there is no output 'z'; the file has n, y"),
        (Hints(shapes={"x": (-1, -1, 5)}), "the shape [-1, -1, 5] of x does not fit the file's, [-1, -1, 4]"),
        (Hints(shapes={"x": (-1, 4)}), "the shape [-1, 4] of x does not fit the file's, [-1, -1, 4]"),
        (Hints(rows={"x": 3}), "x has no axis 3; its shape is [-1, -1, 4]"),
        (Hints(rows={"x": -1}), "x has no axis -1"),
        (Hints(rows={"rate": 0}), "rate has no axis 0; its shape is []"),
    ],
)
def test_hints_that_do_not_fit(hints: Hints, message: str) -> None:
    with pytest.raises(RepositoryError) as raised:
        check(SPEC, hints)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("value", "datatype", "held"),
    [
        (16000.0, "INT64", 16000.0),
        ("1e3", "FP32", 1000.0),
        ("fast", "BYTES", b"fast"),
        (16000.0, "BYTES", b"16000"),
        (0.5, "BYTES", b"0.5"),
        (7, "BYTES", b"7"),
    ],
)
def test_what_is_said_of_an_input_is_held_as_the_input_has_it(
    value: float | str, datatype: str, held: float | bytes
) -> None:
    assert value_for(value, DTYPES[datatype]) == held
