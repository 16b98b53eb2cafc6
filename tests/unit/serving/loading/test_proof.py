"""Files opened and proved: what is known of them before, what each device may differ by, and what is closed when it fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.backends.base import Backend, Candidate
from serving.errors import RepositoryError, VerificationFailed
from serving.loading import proof
from serving.loading.proof import Facts
from serving.loading.request import LoadRequest
from serving.signature.tensors import Tensors
from serving.verification import golden
from tests.support import fake_models, graphs
from tests.support.loading import wanted

FAKE = Candidate("fake", "cpu", 1)
THREE = "instance_group { count: 3 }"


class Kept:
    """Every backend that was opened, as `LoadRequest.wrap` is asked to wrap it; each answer is off by `off`."""

    def __init__(self, off: float = 0.0, off_from: int = 0) -> None:
        self.closed: list[int] = []
        self._off = off
        self._off_from = off_from
        self._opened = 0

    def __call__(self, backend: Backend) -> Backend:
        kept, place = self, self._opened
        off = np.float32(self._off if place >= self._off_from else 0.0)
        self._opened += 1

        class Watched:
            def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
                return {name: array + off for name, array in backend.run(inputs, outputs).items()}

            def close(self) -> None:
                kept.closed.append(place)

        return Watched()


def request(root: Path, text: str, kept: Kept) -> LoadRequest:
    return dataclasses.replace(wanted(root, text), wrap=kept)


def test_every_instance_has_a_backend_that_was_proved(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    kept = Kept(off=5e-6)
    asked = request(tmp_path, THREE, kept)
    facts = proof.read(asked, FAKE)
    with proof.opened(asked, FAKE, facts) as (known, proved):
        assert known == facts
        assert len({id(one.backend) for one in proved}) == 3
        assert all(0 < one.difference <= one.allowed == facts.spec.tolerance for one in proved)
    assert kept.closed == [], "they are the model's now"


@pytest.mark.parametrize("wrong_from", [0, 2])
def test_one_that_computes_something_else_closes_all(wrong_from: int, tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    kept = Kept(off=0.5, off_from=wrong_from)
    asked = request(tmp_path, THREE, kept)
    with (
        pytest.raises(VerificationFailed, match=r"^fake version 1 in fake on cpu: y differs from the trained model"),
        proof.opened(asked, FAKE, proof.read(asked, FAKE)),
    ):
        raise AssertionError("nothing is handed on")
    assert sorted(kept.closed) == list(range(wrong_from + 1))


def test_what_goes_wrong_with_what_was_opened_closes_all(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    kept = Kept()
    asked = request(tmp_path, THREE, kept)
    with pytest.raises(ZeroDivisionError), proof.opened(asked, FAKE, proof.read(asked, FAKE)):
        raise ZeroDivisionError
    assert kept.closed == [2, 1, 0]


@pytest.mark.parametrize(
    ("device", "allow_tf32", "allowed"),
    [
        ("cpu", False, 1e-5),
        ("cpu", True, 1e-5),
        ("cuda:0", False, 1e-5),
        ("cuda:0", True, golden.TF32_TOLERANCE),
    ],
)
def test_what_a_device_may_differ_by(device: str, allow_tf32: bool, allowed: float) -> None:
    assert proof.allowed_on(device, fake_models.spec(), allow_tf32=allow_tf32) == allowed


def test_what_a_version_says_of_itself(tmp_path: Path) -> None:
    fake_models.write(tmp_path)
    facts = proof.read(wanted(tmp_path), FAKE)
    assert (facts.spec, len(facts.samples), facts.described) == (fake_models.spec(), 1, True)


def test_of_a_bare_file_no_more_is_claimed_than_the_operator_states(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path)
    for name in ("spec.json", golden.FILE_NAME):
        (folder / name).unlink()
    with pytest.raises(RepositoryError, match="says nothing of its inputs and outputs"):
        proof.read(wanted(tmp_path), FAKE)
    text = """
        input { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
    """
    facts = proof.read(wanted(tmp_path, text), FAKE)
    assert (facts.described, facts.samples, facts.spec.batched) == (False, (), False)
    assert [(tensor.name, tensor.file_shape) for tensor in facts.spec.inputs] == [("x", (-1, 3))]
    assert facts.spec.written_in == "config.pbtxt of model 'fake'"


def sample(rows: int, steps: int) -> golden.Sample:
    return golden.Sample({"x": np.zeros((rows, steps, 3)), "lengths": np.zeros(rows)}, {})


@pytest.mark.parametrize(
    ("samples", "soonest"),
    [
        ([], None),
        ([sample(4, 9), sample(2, 3), sample(8, 2)], 1),
        ([sample(1, 9), sample(8, 2)], 0),
    ],
)
def test_a_broken_backend_is_asked_what_is_answered_soonest(
    samples: Sequence[golden.Sample], soonest: int | None
) -> None:
    found = Facts(fake_models.spec(), samples, described=True).probe()
    assert found is (None if soonest is None else samples[soonest])


def test_an_output_with_other_steps_than_the_input_is_refused(tmp_path: Path) -> None:
    """Its answers would be cut at the wrong place; files of format 1 do not say where the steps are, only that there are some."""
    folder = fake_models.write(tmp_path, model_spec=fake_models.spec(per_step=True))
    (sample,) = golden.read_samples(folder / golden.FILE_NAME)
    longer = {**sample.outputs, "y": np.concatenate([sample.outputs["y"]] * 2, axis=1)}
    golden.write_samples(folder / golden.FILE_NAME, [golden.Sample(sample.inputs, longer)])
    with pytest.raises(
        RepositoryError, match="y is said to have its steps on axis 1, but of 3 steps a golden sample gives 6"
    ):
        proof.read(wanted(tmp_path), FAKE)


SCALARS = """
    max_batch_size: %s
    input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "s" data_type: TYPE_FP32 dims: [ 1 ] } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""


@pytest.mark.parametrize(
    ("backend", "rows", "own", "shapes"),
    [
        ("onnx_runtime", 0, {"x": ["n"], "s": [], "y": []}, {"x": (-1,), "s": (), "y": ()}),
        ("onnx_runtime", 0, {"x": ["n"], "s": [1], "y": [1]}, {"x": (-1,), "s": (1,), "y": (1,)}),
        ("onnx_runtime", 8, {"x": ["r", "n"], "s": ["r", 1], "y": ["r"]}, {"x": (-1, -1), "s": (-1, 1), "y": (-1,)}),
        ("torchscript", 0, {}, {"x": (-1,), "s": (1,), "y": (1,)}),
    ],
    ids=["scalars", "one element", "a value for each row", "a file that states nothing"],
)
def test_one_element_stands_for_a_scalar_where_the_file_has_one(
    backend: str, rows: int, own: dict[str, list[Any]], shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    folder = tmp_path / "fake" / "1"
    folder.mkdir(parents=True)
    if own:
        sides = [{name: ("FP32", own[name]) for name in names} for names in ("xs", "y")]
        largest = {"axes": [-1], "keepdims": len(own["y"]) == len(own["x"])}
        graphs.write(folder / "model.onnx", [("ReduceMax", ["x"], ["y"], largest)], *sides)
    facts = proof.read(request(tmp_path, SCALARS % rows, Kept()), Candidate(backend, "cpu", 1))
    assert {tensor.name: tensor.file_shape for tensor in (*facts.spec.inputs, *facts.spec.outputs)} == shapes
