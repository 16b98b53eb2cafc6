"""Each fault of a file is told by its own reason, and by no other's: networks and files here are functions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export.sources.differences import Advice, Network, example, held
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors, TensorSpec
from serving.verification.golden import Sample

Array = npt.NDArray[Any]
SPEC = ModelSpec(
    inputs=(TensorSpec("x", "FP32", (-1, -1, 2), 0),),
    outputs=(TensorSpec("y", "FP32", (-1, 2), 0),),
    lengths=None,
    state=(),
    streamable=False,
    tolerance=1e-5,
    weights_sha256="",
)
ADVICE = Advice(branch="TAKE OUT THE BRANCH", sizes="LEAVE THE SIZES FREE")


def network(x: Array) -> Array:
    return np.tanh(x.mean(1))


class File:
    """A backend that computes a function of x."""

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self._function = function

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Mapping[str, Array]:
        return {"y": self._function(inputs["x"]).astype(np.float32)}

    def close(self) -> None: ...


def told(file: Callable[[Array], Array], natural: float | None = 1e-8, samples: Sequence[Array] = ()) -> str:
    """What is said of the file, where float64 is `natural` from the network's own answers."""

    def ask(sent: Tensors, wanted: Sequence[str]) -> Tensors:
        return {"y": network(sent["x"]).astype(np.float32)}

    def wide(sent: Tensors) -> Tensors:
        return {"y": ask(sent, ())["y"].astype(np.float64) + (natural or 0)}

    generator = np.random.default_rng(0)
    tried = [*samples] or [generator.normal(size=(3, steps, 2)).astype(np.float32) for steps in (5, 9, 24)]
    it = Network(SPEC, ask, None if natural is None else wide)
    return held("onnx", File(file), it, [Sample({"x": x}, it.run({"x": x})) for x in tried], ADVICE)[1]


def test_a_file_that_equals_the_network_is_said_nothing_of() -> None:
    assert told(network) == ""
    assert told(lambda x: network(x) + 5e-6) == ""


def test_rounding() -> None:
    said = told(lambda x: network(x) + 4e-5, natural=2e-5)
    assert "differs from the network by 4e-05" in said
    assert "float32 itself is 2e-05 from float64" in said
    assert "--tolerance 1e-04" in said
    assert ADVICE.branch not in said


def test_as_little_as_rounding_and_none() -> None:
    said = told(lambda x: network(x) + 4e-5, natural=1e-8)
    assert "so that is no rounding" in said
    assert "--tolerance" not in said
    assert "some operation is another one in the file" in said


def test_nobody_knows_whether_that_is_rounding() -> None:
    said = told(lambda x: network(x) + 4e-5, natural=None)
    assert "it could not be computed in float64, which would tell whether that is rounding" in said


def test_values_decide() -> None:
    said = told(lambda x: np.where(x.sum() > 0, 1, -1) * network(x))
    assert "it agrees for other values of these sizes, so that the values decide" in said
    assert ADVICE.branch in said
    assert ADVICE.sizes not in said


@pytest.mark.parametrize(
    ("file", "at"),
    [
        (lambda x: network(x) + 0.1 * (x.shape[1] - 9), "[3, 5, 2]"),
        (lambda x: np.tanh(x[:, :9].sum(1) / 9) if x.shape[1] > 9 else network(x), "[3, 24, 2]"),
    ],
    ids=["a number", "a loop"],
)
def test_sizes_decide(file: Callable[[Array], Array], at: str) -> None:
    said = told(file)
    assert f"with x {at}: " in said
    assert "it agrees with x [2, 9, 2], whatever the values, so that the sizes decide: one has been baked in" in said
    assert ADVICE.sizes in said
    assert ADVICE.branch not in said


def test_a_size_that_the_file_refuses() -> None:
    def fixed(x: Array) -> Array:
        if x.shape[1] != 9:
            raise RuntimeError("9 expected")
        return network(x)

    said = told(fixed)
    assert "the onnx file fails: 9 expected, with x [3, 5, 2]: it agrees with x [2, 9, 2], whatever the values" in said
    assert ADVICE.sizes in said


def test_another_operation() -> None:
    said = told(lambda x: 2 * network(x))
    assert (
        "it differs for all other values and sizes that were tried, those that it was written with among them" in said
    )
    assert ADVICE.branch not in said
    assert ADVICE.sizes not in said


def test_both_values_and_sizes() -> None:
    said = told(lambda x: network(x) if x.shape == (2, 9, 2) and (x == 1).all() else 2 * network(x))
    assert "values or sizes decide" in said
    assert ADVICE.branch in said
    assert ADVICE.sizes in said


def test_chance() -> None:
    count = itertools.count(1)
    said = told(lambda x: network(x) + next(count))
    assert "answers the same inputs differently the second time: it draws something at random" in said
    assert ADVICE.branch not in said


def test_another_shape() -> None:
    said = told(lambda x: network(x)[:2])
    assert "the onnx file answers y in the shape [2, 2] and not [3, 2], with x [3, 5, 2]" in said


def test_no_numbers() -> None:
    said = told(lambda x: np.where(x.shape[1] == 9, network(x), np.nan))
    assert "the onnx file answers y with NaN or infinity where the network does not" in said
    assert ADVICE.sizes in said


@pytest.mark.parametrize(("rows_axis", "sizes"), [(0, (3, 9, 2)), (1, (9, 3, 2)), (None, (9, 2))])
def test_the_example_is_full_of_ones(rows_axis: int | None, sizes: tuple[int, ...]) -> None:
    batched = rows_axis is not None
    rows = -1 if batched else 1
    inputs = (TensorSpec("x", "FP32", (rows, -1, 2), rows_axis),)
    outputs = (TensorSpec("y", "FP32", (rows, 2), 0 if batched else None),)
    made = example(dataclasses.replace(SPEC, inputs=inputs, outputs=outputs, batched=batched), rows=3, size=9)["x"]
    assert made.shape == sizes
    assert (made == 1).all()
