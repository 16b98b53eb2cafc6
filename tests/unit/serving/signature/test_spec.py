"""The facts about a version: what may be said in `spec.json`, what contradicts itself, and what follows from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.errors import RepositoryError
from serving.signature.spec import LengthsSpec, MaskedBy, ModelSpec, fill_in
from serving.signature.tensors import TensorSpec
from tests.support import fake_models
from tests.support.foreign_specs import ALONE, SHARED

PLAIN = fake_models.spec()
PER_STEP = fake_models.spec(vocabulary=5, per_step=True)


@pytest.mark.parametrize("spec", [PLAIN, PER_STEP, SHARED, ALONE])
def test_the_specification_survives_the_file(spec: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(spec.to_json())
    assert ModelSpec.read(tmp_path / "spec.json") == spec


def _json(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        fields = json.loads(text)
        change(fields)
        return json.dumps(fields)

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "", "not a usable specification"),
        (lambda text: text[: len(text) // 2], "not a usable specification"),
        (lambda _: "[]", "not a usable specification"),
        (
            _json(lambda f: f.update(format_version=99)),
            "format_version is 99; this server reads 1 and 2: export the model again",
        ),
        (_json(lambda f: f.pop("inputs")), "'inputs' is missing"),
        (
            _json(lambda f: f.update(surprise=1)),
            "it has 'surprise', which is no key there; known are inputs, outputs, lengths",
        ),
        (_json(lambda f: f.update(tolerance=0.2)), "tolerance is 0.2; it must be positive and at most 0.1"),
        (_json(lambda f: f.update(vocabulary=-1)), "vocabulary is -1; it must be 0 to"),
        (_json(lambda f: f.update(nonfinite="no")), "nonfinite is 'no'; it must be 'refuse' or 'pass'"),
        (
            _json(lambda f: f.update(labels_of="z")),
            "labels belong to 'z', which is not an output; the outputs are y, hn, cn",
        ),
        (_json(lambda f: f["state"].append(f["state"][0])), "state names the input h0 twice"),
        (_json(lambda f: f["state"][1].update(output="hn")), "state names the output hn twice"),
        (_json(lambda f: f["outputs"][1].update(datatype="FP64")), "state h0 is FP32 and its next value hn is FP64"),
        (
            _json(lambda f: f["lengths"].update(input="h0")),
            r"lengths are FP32 of shape \[-1, 1, 4\]; they must be whole",
        ),
        (_json(lambda f: f.update(tolerance=0)), "tolerance is 0"),
        (_json(lambda f: f["inputs"][0].update(datatype="FP8")), "x has datatype 'FP8'"),
        (_json(lambda f: f["inputs"][0].update(shape=[-1, 0])), r"x has shape \[-1, 0\]"),
        (_json(lambda f: f["inputs"][1].update(name="x")), "inputs are named twice"),
        (_json(lambda f: f["state"][0].update(output="nowhere")), "state h0 <- nowhere"),
        (_json(lambda f: f["lengths"].update(of="nowhere")), "lengths names"),
    ],
)
def test_a_specification_that_is_damaged(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(change(fake_models.spec().to_json()))
    with pytest.raises(RepositoryError, match=message) as raised:
        ModelSpec.read(path)
    assert str(path) in str(raised.value)


def test_a_specification_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"spec\.json is missing: the version is incomplete; export it again"):
        ModelSpec.read(tmp_path / "spec.json")


def as_format_1(spec: ModelSpec) -> str:
    """As exporters wrote it that knew nothing of axes of steps."""
    fields = json.loads(spec.to_json())
    fields["format_version"] = 1
    for tensor in (*fields["inputs"], *fields["outputs"]):
        del tensor["steps_axis"]
    return json.dumps(fields)


def with_free_state(spec: ModelSpec) -> ModelSpec:
    """The same with state whose second axis is free, as that of steps is."""
    shapes = {pair.output: (-1, -1, 4) for pair in spec.state}
    outputs = tuple(dataclasses.replace(one, shape=shapes.get(one.name, one.shape)) for one in spec.outputs)
    return dataclasses.replace(spec, outputs=outputs)


def without_steps(spec: ModelSpec) -> ModelSpec:
    """The same without any axis of steps, and without `lengths`, which count them."""
    sides = {
        side: tuple(dataclasses.replace(one, steps_axis=None) for one in getattr(spec, side))
        for side in ("inputs", "outputs")
    }
    return dataclasses.replace(spec, lengths=None, **sides)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "steps_axes"),
    [
        (PLAIN, {"x": 1}),
        (PER_STEP, {"x": 1, "y": 1}),
        (with_free_state(PER_STEP), {"x": 1, "y": 1}),  # the state has none, however free
        (without_steps(PER_STEP), {}),  # without lengths nothing is said of steps
        (ALONE, {}),
    ],
    ids=["an answer for each row", "an answer for each step", "a state of free size", "no lengths", "no rows"],
)
def test_format_1_is_read_with_the_axes_of_steps_that_its_lengths_imply(
    spec: ModelSpec, steps_axes: Mapping[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(as_format_1(spec))
    read = ModelSpec.read(path)
    tensors = (*read.inputs, *read.outputs)
    assert {tensor.name: tensor.steps_axis for tensor in tensors if tensor.steps_axis is not None} == steps_axes
    assert without_steps(read) == without_steps(spec), "all else is as it was"
    path.write_text(read.to_json())
    assert json.loads(path.read_text())["format_version"] == 2
    assert ModelSpec.read(path) == read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": (TensorSpec("x", "FP32", (-1, 3), 2),)}, "rows on axis 2, but 2 axes"),
        ({"batched": False}, "has no axis of rows, but"),
        ({"outputs": (TensorSpec("y", "FP32", (-1, 1), None),), "state": ()}, "nobody knows which row"),
        ({"inputs": (TensorSpec("x", "FP32", (-1, 3), None),), "state": ()}, "no input has an axis of rows"),
    ],
)
def test_specifications_that_contradict_themselves(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        dataclasses.replace(SHARED, **change)


@pytest.mark.parametrize(
    ("shape", "axis", "allowed"),
    [
        ((-1, -1, 3), 1, True),
        ((-1, 3, -1), 2, True),
        ((-1, -1, 3), None, True),
        ((-1, -1, 3), 0, False),  # the rows
        ((-1, 5, 3), 1, False),  # not free
        ((-1, -1, 3), 2, False),
        ((-1, -1), 2, False),  # no such axis
        ((-1, -1), -1, False),
    ],
)
def test_steps_lie_along_a_free_axis_behind_the_rows(shape: tuple[int, ...], axis: int | None, allowed: bool) -> None:
    changes = {"inputs": (TensorSpec("x", "FP32", shape, steps_axis=axis),), "lengths": None, "state": ()}
    if allowed:
        assert dataclasses.replace(PLAIN, **changes).inputs[0].steps_axis == axis
        return
    with pytest.raises(
        RepositoryError, match=f"x has its steps on axis {axis} of .*; it must be a free one behind the"
    ):
        dataclasses.replace(PLAIN, **changes)


def test_lengths_need_an_axis_of_steps() -> None:
    inputs = tuple(dataclasses.replace(one, steps_axis=None) for one in PLAIN.inputs)
    with pytest.raises(RepositoryError, match="lengths count the steps of x, which has no axis of steps"):
        dataclasses.replace(PLAIN, inputs=inputs)


TURNED = dataclasses.replace(
    without_steps(PLAIN), inputs=(TensorSpec("x", "FP32", (-1, 3, -1), steps_axis=2),), state=()
)


@pytest.mark.parametrize(
    ("spec", "shape", "steps"),
    [(PLAIN, (2, 7, 3), 7), (TURNED, (2, 3, 7), 7), (without_steps(PLAIN), (2, 7, 3), 1)],
    ids=["steps on axis 1", "steps on axis 2", "no axis of steps"],
)
def test_how_many_steps_a_request_has(spec: ModelSpec, shape: tuple[int, ...], steps: int) -> None:
    """The first input that has steps says so; the others have as many."""
    assert spec.steps({"lengths": np.zeros(2), "x": np.zeros(shape)}) == steps


def test_what_a_client_may_leave_out_is_not_advertised() -> None:
    assert PLAIN.filled_in == {"lengths", "h0", "c0"}
    assert [tensor.name for tensor in PLAIN.advertised_inputs] == ["x"]
    assert [tensor.name for tensor in PLAIN.advertised_outputs] == ["y"]
    assert SHARED.filled_in == set()
    assert [tensor.name for tensor in SHARED.advertised_inputs] == ["x", "state", "rate"]
    assert [tensor.name for tensor in SHARED.advertised_outputs] == ["y", "stateN"]
    assert (PLAIN.shared, SHARED.shared, ALONE.shared) == (set(), {"rate"}, set())


@pytest.mark.parametrize(
    ("spec", "shapes"),
    [
        (PLAIN, {"x": (-1, -1, 3), "h0": (-1, 1, 4)}),
        (SHARED, {"x": (-1, 3), "state": (-1, 2, 4), "rate": (-1, 1)}),
        (ALONE, {"x": (-1, 3), "gain": (1,)}),
    ],
    ids=["rows first", "a shared value", "no rows"],
)
def test_the_shapes_that_clients_are_told(spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]]) -> None:
    assert {name: spec.shown_shape(spec.inputs_by_name[name]) for name in shapes} == shapes


def test_state_of_a_size_that_nobody_knows_must_be_sent() -> None:
    free = dataclasses.replace(
        PLAIN, inputs=tuple(dataclasses.replace(t, shape=(-1, 1, -1)) if t.name == "h0" else t for t in PLAIN.inputs)
    )
    assert free.filled_in == {"lengths", "c0"}
    assert [tensor.name for tensor in free.advertised_inputs] == ["x", "h0"]


def test_what_was_left_out_is_filled_in() -> None:
    inputs: dict[str, Any] = {"x": np.ones((2, 7, 3), np.float32), "c0": np.ones((2, 1, 4), np.float32)}
    fill_in(inputs, PLAIN, 2)
    assert (inputs["lengths"].tolist(), inputs["lengths"].dtype) == ([7, 7], np.int64)
    assert (inputs["h0"].shape, inputs["h0"].any()) == ((2, 1, 4), False)
    assert inputs["c0"].all(), "what was sent stays"


def test_steps_are_counted_along_their_own_axis_where_lengths_are_filled_in() -> None:
    spec = dataclasses.replace(
        TURNED,
        inputs=(*TURNED.inputs, TensorSpec("lengths", "INT64", (-1,))),
        lengths=LengthsSpec("lengths", "x"),
    )
    inputs: dict[str, Any] = {"x": np.ones((2, 3, 9), np.float32)}
    fill_in(inputs, spec, 2)
    assert inputs["lengths"].tolist() == [9, 9]


@pytest.mark.parametrize(
    ("spec", "said", "refuses"),
    [(PLAIN, "", True), (PLAIN, "pass", False), (SHARED, "", False), (SHARED, "refuse", True)],
)
def test_who_knows_lengths_refuses_nan_unless_it_says_otherwise(spec: ModelSpec, said: str, refuses: bool) -> None:
    assert dataclasses.replace(spec, nonfinite=said).refuses_nonfinite is refuses


X, LENGTHS = TensorSpec("x", "FP32", (-1, -1, 3), steps_axis=1), TensorSpec("lengths", "INT64", (-1,))
STATIC = TensorSpec("static", "FP32", (-1, 4))
LAST, EACH = TensorSpec("y", "FP32", (-1, 2)), TensorSpec("y", "FP32", (-1, -1, 2), steps_axis=1)
OF_X = LengthsSpec("lengths", "x")


@pytest.mark.parametrize(
    ("why", "inputs", "outputs", "lengths", "joined"),
    [
        ("the last step's values", (X, LENGTHS), (LAST,), OF_X, True),
        ("values for each step, which are cut back", (X, LENGTHS), (EACH,), OF_X, True),
        ("what has no steps beside it", (X, LENGTHS, STATIC), (LAST,), OF_X, True),
        ("nobody could tell which steps are true", (X, LENGTHS), (LAST,), None, False),
        ("of another input's steps nobody could", (X, LENGTHS, dataclasses.replace(X, name="z")), (LAST,), OF_X, False),
        ("an answer that nobody could cut back", (X, LENGTHS), (TensorSpec("y", "FP32", (-1, -1, 2)),), OF_X, False),
        ("one axis too many", (X, LENGTHS), (TensorSpec("y", "FP32", (-1, -1, -1), steps_axis=1),), OF_X, False),
    ],
)
def test_whether_unequal_lengths_may_share_a_batch(
    why: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    lengths: LengthsSpec | None,
    joined: bool,
) -> None:
    spec = dataclasses.replace(fake_models.spec(), inputs=inputs, outputs=outputs, lengths=lengths, state=())
    assert spec.joins_lengths == joined, why
    short, long = ({"x": np.zeros((1, steps, 3))} for steps in (2, 9))
    assert (spec.batch_key(short) == spec.batch_key(long)) == joined, why
    assert spec.batch_key(short, b"shared") != spec.batch_key(short)
    assert spec.batch_key(short) != spec.batch_key({"x": np.zeros((1, 2, 4))}), "other sizes never do"


def test_a_file_of_others_that_is_told_its_true_steps(tmp_path: Path) -> None:
    spec = dataclasses.replace(fake_models.spec(), lengths=None, masks=MaskedBy("lengths", "x", 64))
    assert spec.joins_lengths
    assert "lengths" not in spec.filled_in, "a client sends them, as the file asks for them"
    assert not spec.refuses_nonfinite
    (tmp_path / "spec.json").write_text(spec.to_json())
    assert ModelSpec.read(tmp_path / "spec.json") == spec
    assert "masks" not in json.loads(PLAIN.to_json()), "older servers refuse keys that they do not know"
    with pytest.raises(RepositoryError, match=r"masks names .*nowhere.*its inputs are x, lengths, h0, c0"):
        dataclasses.replace(spec, masks=MaskedBy("nowhere", "x", 64))
    with pytest.raises(RepositoryError, match="lengths and masks say the same"):
        dataclasses.replace(spec, lengths=OF_X)
    with pytest.raises(RepositoryError, match="masks holds up to 0 steps"):
        dataclasses.replace(spec, masks=MaskedBy("lengths", "x", 0))
