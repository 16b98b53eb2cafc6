"""Which output is the next value of which input: by names and shapes, or as a person says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from serving.errors import RepositoryError
from serving.signature.spec import ModelSpec, StatePair
from serving.verification.hints import Hints, Unclear
from serving.verification.state_pairs import state_pairs
from tests.support.files_of_others import Shapes, stated


def paired(spec: ModelSpec, hints: Hints | None = None) -> tuple[StatePair, ...]:
    return state_pairs(spec, {tensor.name: tensor.file_shape for tensor in spec.inputs}, hints or Hints())


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
    assert {pair.input: pair.output for pair in paired(spec)} == pairs


@pytest.mark.parametrize(
    ("before", "after", "datatypes", "is_one"),
    [
        ((-1, 4), (-1, 4), {}, True),
        ((-1, 4), (-1, -1), {}, True),  # the file leaves it free
        ((-1, 4), (-1, 5), {}, False),
        ((-1, 4), (1, -1, 4), {}, False),
        ((-1, 4), (-1, 4), {"hn": "FP16"}, False),
    ],
)
def test_a_pair_must_be_of_one_shape_and_datatype(
    before: tuple[int, ...], after: tuple[int, ...], datatypes: Mapping[str, str], is_one: bool
) -> None:
    pairs = paired(stated({"h0": before}, {"hn": after}, datatypes))
    assert pairs == ((StatePair("h0", "hn"),) if is_one else ())


def test_names_that_leave_it_open() -> None:
    spec = stated({"x": (-1, 4), "h": (-1, 4), "h0": (-1, 4)}, {"y": (-1, 4), "hn": (-1, 4)})
    with pytest.raises(Unclear, match=r"inputs h, h0, outputs hn; say it with --state INPUT=OUTPUT"):
        paired(spec)
    assert paired(spec, Hints(state={"h": "hn"})) == (StatePair("h", "hn"),)
    assert paired(spec, Hints(state={})) == ()


@pytest.mark.parametrize(
    ("inputs", "state", "message"),
    [
        ({"h": (-1, 5)}, {"h": "n"}, "n cannot be the next value of h: it is FP32 [-1, 4], and that is FP32 [-1, 5]"),
        ({"h": (-1, 4), "c": (-1, 4)}, {"h": "n", "c": "n"}, "one output is named as the next value of two inputs"),
    ],
)
def test_what_a_person_says_must_be_possible(inputs: Shapes, state: Mapping[str, str], message: str) -> None:
    with pytest.raises(RepositoryError) as raised:
        paired(stated(inputs, {"n": (-1, 4)}), Hints(state=state))
    assert message in str(raised.value)
