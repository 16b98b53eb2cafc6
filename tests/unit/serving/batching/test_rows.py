"""Requests into the rows of a batch, and its results back into answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from serving.batching.pending import Pending, Piece, whole
from serving.batching.rows import gather, padding_ratio, scatter, wanted
from serving.signature.spec import LengthsSpec, ModelSpec
from serving.signature.tensors import Tensors, TensorSpec
from serving.telemetry.timeline import Timeline
from tests.support.gated import Answer

SPEC = ModelSpec(
    inputs=(TensorSpec("x", "INT64", (-1, -1), steps_axis=1), TensorSpec("lengths", "INT64", (-1,))),
    outputs=(TensorSpec("y", "FP32", (-1, 2)),),
    lengths=LengthsSpec("lengths", "x"),
    state=(),
    streamable=False,
    tolerance=1e-5,
    weights_sha256="",
)


def piece(first: int, rows: int, *outputs: str, steps: int = 2) -> Piece:
    """A request whose rows are numbered from `first`, in two inputs."""
    numbers = np.arange(first, first + rows)
    inputs = {"x": np.repeat(numbers[:, None], steps, axis=1), "lengths": numbers}
    return whole(Pending(Answer(0), inputs, rows, steps, outputs or ("y",), (b"",), Timeline(0)))


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([("z", "y")], ("z", "y")),
        ([("y",), ("y",)], ("y",)),
        ([("y",), ("z", "y"), ("hn",)], ("y", "z", "hn")),
    ],
)
def test_every_output_that_somebody_wants_is_computed_once(
    outputs: list[tuple[str, ...]], expected: tuple[str, ...]
) -> None:
    assert tuple(wanted([piece(0, 1, *names) for names in outputs])) == expected


def test_rows_stand_one_after_the_other_in_every_input() -> None:
    gathered = gather([piece(1, 2), piece(7, 1), piece(4, 3)], SPEC)
    assert gathered["lengths"].tolist() == [1, 2, 7, 4, 5, 6]
    np.testing.assert_array_equal(gathered["x"], np.repeat(gathered["lengths"][:, None], 2, axis=1))


def test_a_request_alone_is_not_copied() -> None:
    one = piece(0, 2)
    for name, array in one.pending.inputs.items():
        assert gather([one], SPEC)[name] is array


def test_what_was_left_out_is_filled_in_beside_what_was_sent() -> None:
    some, none, more = piece(1, 2, steps=5), piece(7, 1, steps=5), piece(4, 1, steps=5)
    none.pending.inputs = {"x": none.pending.inputs["x"]}
    assert gather([some, none, more], SPEC)["lengths"].tolist() == [1, 2, 5, 4]
    some.pending.inputs = {"x": some.pending.inputs["x"]}
    gathered = gather([some, none], SPEC)
    assert (gathered["lengths"].tolist(), gathered["lengths"].dtype) == ([5, 5, 5], np.int64)
    assert gather([none], SPEC)["lengths"].tolist() == [5]


def test_each_gets_its_own_rows_of_what_it_wants() -> None:
    results = {"y": np.arange(6) * 10, "z": np.arange(6) * 100}
    pieces = [piece(0, 2, "y"), piece(2, 1, "z", "y"), piece(3, 3, "z")]
    found = [{name: array.tolist() for name, array in answer.items()} for answer in scatter(pieces, results, {})]
    assert found == [{"y": [0, 10]}, {"z": [200], "y": [20]}, {"z": [300, 400, 500]}]


# Rows in front, then steps and two features, or the other way round; 3 rows of 4 steps.
BATCH = np.arange(3 * 4 * 2).reshape(3, 4, 2)
TURNED = BATCH.transpose(0, 2, 1)


@pytest.mark.parametrize(
    ("results", "steps_axes", "expected"),
    [
        ({"y": BATCH}, {"y": 1}, BATCH[:2, :3]),
        ({"y": TURNED}, {"y": 2}, TURNED[:2, :, :3]),
        ({"y": BATCH}, {}, BATCH[:2]),  # no axis of steps, or none that was proved
        ({"y": BATCH[:, :2]}, {"y": 1}, BATCH[:2, :2]),  # shorter already
        ({"y": BATCH}, {"y": 1, "z": 1}, BATCH[:2, :3]),  # nobody wants the other output
    ],
    ids=["steps on axis 1", "steps on axis 2", "no steps", "nothing to cut", "an output that is not wanted"],
)
def test_an_answer_is_cut_to_the_requests_own_steps(
    results: Tensors,
    steps_axes: Mapping[str, int],
    expected: np.ndarray,  # type: ignore[type-arg]
) -> None:
    mine, other = piece(0, 2, steps=3), piece(2, 1, steps=4)
    answer, of_other = scatter([mine, other], results, steps_axes)
    np.testing.assert_array_equal(answer["y"], expected)
    np.testing.assert_array_equal(of_other["y"], results["y"][2:])


def test_unequal_requests_are_padded_to_the_longest_and_their_lengths_filled_in() -> None:
    short, long, told = piece(7, 2, steps=1), piece(8, 1, steps=3), piece(9, 1, steps=2)
    for one in (short, long):
        one.pending.inputs = {"x": one.pending.inputs["x"]}
    told.pending.inputs = {**told.pending.inputs, "lengths": np.array([1])}
    gathered = gather([short, long, told], SPEC)
    assert gathered["x"].tolist() == [[7, 0, 0], [8, 0, 0], [8, 8, 8], [9, 9, 0]]
    assert gathered["lengths"].tolist() == [1, 1, 3, 1]


@pytest.mark.parametrize(("datatype", "filling"), [("FP32", 0.0), ("INT8", 0), ("BOOL", False), ("BYTES", b"")])
def test_padding_is_what_the_datatype_has_for_nothing_along_the_axis_of_steps(datatype: str, filling: object) -> None:
    x = TensorSpec("x", datatype, (-1, 2, -1), steps_axis=2)
    spec = dataclasses.replace(SPEC, inputs=(x, SPEC.inputs[1]))
    one, two = (
        whole(Pending(Answer(0), {"x": np.ones((1, 2, steps), x.dtype)}, 1, steps, ["y"], (b"",), Timeline(0)))
        for steps in (1, 2)
    )
    padded = gather([one, two], spec)["x"]
    assert (padded.shape, padded.dtype) == ((2, 2, 2), x.dtype)
    assert padded[0, :, 1].tolist() == [filling, filling]
    assert padded[0, :, 0].tolist() == padded[1, :, 1].tolist() == one.pending.inputs["x"][0, :, 0].tolist()


@pytest.mark.parametrize(
    ("pieces", "ratio"),
    [([(1, 5)], 0), ([(1, 5), (3, 5)], 0), ([(1, 5), (1, 10)], 0.25), ([(3, 5), (1, 10)], 0.375)],
)
def test_which_share_of_a_batch_is_padding(pieces: Sequence[tuple[int, int]], ratio: float) -> None:
    assert padding_ratio([piece(0, rows, steps=steps) for rows, steps in pieces]) == pytest.approx(ratio)
