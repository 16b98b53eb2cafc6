"""Golden samples: how they are kept, how two answers are compared, and what a backend is asked with them."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.errors import RepositoryError, VerificationFailed
from serving.signature.tensors import BF16
from serving.verification import golden
from tests.support import fake_models


def test_rows_are_repeated_and_cut_in_every_input_alike() -> None:
    inputs = {
        "x": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
        "lengths": np.array([3, 1], np.int64),
        "names": np.array([[b"a"], [b"b"]], object),
        "halves": np.zeros((2, 1), BF16),
    }
    five = golden.with_rows(inputs, 5)
    assert five["lengths"].tolist() == [3, 1, 3, 1, 3]
    assert five["names"].tolist() == [[b"a"], [b"b"], [b"a"], [b"b"], [b"a"]]
    for name, array in inputs.items():
        assert five[name].shape == (5, *array.shape[1:])
        assert five[name].dtype == array.dtype
        np.testing.assert_array_equal(five[name][3], array[1])
        np.testing.assert_array_equal(golden.with_rows(inputs, 1)[name], array[:1])


def test_no_row_cannot_be_repeated() -> None:
    with pytest.raises(ValueError, match="x have no row to repeat"):
        golden.with_rows({"x": np.zeros((0, 3)), "lengths": np.zeros(1)}, 2)


def test_the_longest_sample_has_the_most_steps_not_the_most_rows() -> None:
    many, long = (
        golden.Sample({"x": np.zeros((rows, steps, 2)), "lengths": np.zeros(rows)}, {})
        for rows, steps in ((8, 3), (1, 9))
    )
    assert golden.longest([many, long, many]) is long


@pytest.mark.parametrize(("tf32", "expected"), [(False, 1e-5), (True, golden.TF32_TOLERANCE)])
def test_tf32_has_a_tolerance_of_its_own(tf32: bool, expected: float) -> None:
    assert golden.tolerance(fake_models.spec(), tf32=tf32) == expected


def test_a_replay_says_how_far_the_worst_output_is_off(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path)
    (sample,) = golden.read_samples(folder / golden.FILE_NAME)

    def off_by(amount: float) -> float:
        answers = {name: array + np.float32(amount) for name, array in sample.outputs.items()}
        return golden.replay(lambda inputs, outputs: answers, fake_models.spec(), [sample], 0.01, "it")

    assert off_by(0) == 0
    assert 0 < off_by(0.005) < 0.01
    with pytest.raises(VerificationFailed, match="it: y differs from the trained model by"):
        off_by(1.0)


def test_a_replay_needs_whole_samples(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path)
    (sample,) = golden.read_samples(folder / golden.FILE_NAME)
    for broken, message in (
        (golden.Sample(sample.inputs, {"y": sample.outputs["y"]}), "says nothing of hn, cn"),
        (dataclasses.replace(sample, inputs={"x": np.zeros((1, 0, 3))}), "has an input without elements"),
    ):
        with pytest.raises(VerificationFailed, match=message):
            golden.replay(lambda inputs, outputs: sample.outputs, fake_models.spec(), [sample, broken], 0.1, "it")


def test_golden_samples_survive_the_file(tmp_path: Path) -> None:
    samples = [
        golden.Sample({"x": np.ones((2, 3), np.float32)}, {"y": np.zeros((2,), np.float32)}),
        golden.Sample({"x": np.ones((1, 9), np.float32)}, {"y": np.ones((1,), np.float32)}),
    ]
    golden.write_samples(tmp_path / "golden.npz", samples)
    for got, expected in zip(golden.read_samples(tmp_path / "golden.npz"), samples, strict=True):
        np.testing.assert_array_equal(got.inputs["x"], expected.inputs["x"])
        np.testing.assert_array_equal(got.outputs["y"], expected.outputs["y"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"shape": (-1, -1, 9)},
            r"says that x is FP32 \[-1, -1, 9\], and a golden sample has it as float32 \[2, 3, 3\]",
        ),
        ({"shape": (-1, -1)}, r"says that x is FP32 \[-1, -1\], and"),
        ({"datatype": "FP64"}, r"says that x is FP64 \[-1, -1, 3\], and"),
        ({"name": "z"}, "says nothing of z"),
    ],
)
def test_a_specification_that_its_samples_contradict(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (sample,) = golden.read_samples(fake_models.write(tmp_path) / golden.FILE_NAME)
    x, *others = fake_models.spec().inputs
    spec = dataclasses.replace(
        fake_models.spec(), inputs=(dataclasses.replace(x, **change), *others), lengths=None, state=()
    )
    with pytest.raises(VerificationFailed, match=said):
        golden.replay(lambda inputs, outputs: sample.outputs, spec, [sample], 0.1, "it")


@pytest.mark.parametrize("key", ["x", "0/x", "0/with/x", "-1/in/x", "first/in/x", "0/in/", "1000000000/in/x"])
def test_arrays_that_are_no_part_of_a_sample(tmp_path: Path, key: str) -> None:
    with zipfile.ZipFile(tmp_path / "golden.npz", "w") as archive, archive.open(f"{key}.npy", "w") as file:
        np.save(file, np.zeros(1))
    with pytest.raises(RepositoryError, match=f"golden.npz holds '{key}', which is no part of a golden sample"):
        golden.read_samples(tmp_path / "golden.npz")


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_golden_samples_that_are_cut_off(tmp_path: Path, kept: float) -> None:
    path = fake_models.write(tmp_path) / "golden.npz"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(RepositoryError, match="not a usable set of golden samples"):
        golden.read_samples(path)


@pytest.mark.parametrize(
    ("got", "expected", "difference"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.5], [0.25], 0.25),
        ([110.0], [100.0], 0.1),
        ([np.nan, np.inf], [np.nan, np.inf], 0.0),
        ([np.nan], [1.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        ([], [], 0.0),
    ],
)
def test_disagreement_is_relative_above_one_and_absolute_below(
    got: list[float], expected: list[float], difference: float
) -> None:
    assert golden.disagreement(np.array(got), np.array(expected)) == pytest.approx(difference)


def test_a_single_number_agrees_or_not() -> None:
    assert golden.disagreement(np.float32(2), np.float32(1)) == 1
    assert golden.disagreement(np.int64(3), np.int64(3), 0) == 0


def test_a_disagreement_says_by_how_much() -> None:
    with pytest.raises(VerificationFailed, match=r"m in b: y differs from the trained model by 0.5 .*at most 1e-05"):
        golden.check_agreement("m in b", {"y": np.array([0.5])}, {"y": np.array([0.0])}, 1e-5)
