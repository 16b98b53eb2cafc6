"""A checkpoint comes back as it was saved, and a folder that contradicts itself is refused by the file that is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.checkpoint import Checkpoint, CheckpointError, check_weights, expected_shapes, weights_digest
from models.config import LSTMConfig
from models.examples import Examples

CONFIG = LSTMConfig(features=3, layers=2, hidden=4, bidirectional=True, head="values", outputs=2)


def weights() -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0.1, 1, shape).astype(np.float32) for name, shape in expected_shapes(CONFIG).items()}


def checkpoint() -> Checkpoint:
    samples = (np.ones((5, 3), np.float32), np.zeros((2, 3), np.float32))
    training = {"scores": {"test_accuracy": 0.5}, "seed": 3}
    return Checkpoint(config=CONFIG, weights=weights(), framework="torch", training=training, samples=samples)


def test_round_trip(tmp_path: Path) -> None:
    saved = dataclasses.replace(checkpoint(), labels=("warm", "cold"))
    saved.save(tmp_path / "deep" / "run")
    loaded = Checkpoint.load(tmp_path / "deep" / "run")
    assert (loaded.config, loaded.framework, loaded.training) == (saved.config, saved.framework, saved.training)
    assert Checkpoint.framework_of(tmp_path / "deep" / "run") == "torch"
    assert loaded.labels == ("warm", "cold")
    assert weights_digest(loaded.weights) == weights_digest(saved.weights)
    assert [sample.tolist() for sample in loaded.samples] == [sample.tolist() for sample in saved.samples]


@pytest.mark.parametrize(
    "test",
    [
        Examples([np.ones((5, 3), np.float32), np.zeros((2, 3), np.float32)], np.array([1, 0])),
        Examples([np.ones((2, 3), np.float32)], [np.array([[np.nan], [2.0]], np.float32)]),
    ],
    ids=["classes", "values per step"],
)
def test_what_the_score_was_measured_on_is_kept(test: Examples, tmp_path: Path) -> None:
    dataclasses.replace(checkpoint(), test=test).save(tmp_path)
    loaded = Checkpoint.load(tmp_path).test
    assert loaded is not None
    for got, kept in ((loaded.sequences, test.sequences), (loaded.targets, test.targets)):
        for one, other in zip(got, kept, strict=True):
            np.testing.assert_array_equal(one, other)
    checkpoint().save(tmp_path)
    assert Checkpoint.load(tmp_path).test is None


def test_saving_again_leaves_nothing_of_the_earlier_run(tmp_path: Path) -> None:
    checkpoint().save(tmp_path)
    dataclasses.replace(checkpoint(), samples=()).save(tmp_path)
    assert Checkpoint.load(tmp_path).samples == ()


def test_a_save_that_is_cut_off_leaves_no_finished_run(tmp_path: Path) -> None:
    checkpoint().save(tmp_path)
    unwritable = dataclasses.replace(checkpoint(), training={"seed": object()})
    with pytest.raises(TypeError):
        unwritable.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"training\.json is missing"):
        Checkpoint.load(tmp_path)


def test_the_digest_is_of_names_shapes_and_values() -> None:
    one = {"a": np.zeros((2, 3), np.float32)}
    assert weights_digest(one) == weights_digest({"a": np.zeros((2, 3), np.float32)})
    others = [{"b": one["a"]}, {"a": np.zeros((3, 2), np.float32)}, {"a": np.ones((2, 3), np.float32)}]
    assert len({weights_digest(weights) for weights in [one, *others]}) == 4


def _set(name: str, array: np.ndarray[Any, Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        arrays = load_file(folder / "weights.safetensors")
        save_file({**arrays, name: array}, folder / "weights.safetensors")

    return change


def _write(name: str, text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


def _without(name: str, field: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        fields = json.loads((folder / name).read_text())
        del fields[field]
        (folder / name).write_text(json.dumps(fields))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"config\.json is missing"),
        (lambda folder: (folder / "weights.safetensors").unlink(), r"weights\.safetensors is missing"),
        (lambda folder: (folder / "training.json").unlink(), r"training\.json is missing"),
        (_write("config.json", "{"), r"config\.json is not JSON"),
        (_write("config.json", "[]"), r"config\.json holds a list"),
        (_write("config.json", '{"layer": 1}'), "unknown field 'layer'"),
        (_write("training.json", "3"), r"training\.json holds a int"),
        (lambda folder: (folder / "training.json").write_bytes(b"\xff"), r"training\.json is not JSON"),
        (_without("training.json", "framework"), r"training\.json lacks framework"),
        (_write("weights.safetensors", "garbage"), "not a usable checkpoint"),
        (_set("head.bias", np.zeros(3, np.float32)), r"head\.bias is float32 \[3\]; .* float32 \[2\]"),
        (_set("head.bias", np.zeros(2, np.float64)), r"head\.bias is float64 \[2\]"),
        (_set("head.bias", np.array([0, np.nan], np.float32)), r"head\.bias holds values that are not finite"),
        (_set("input.scale", np.zeros(3, np.float32)), r"input\.scale must be positive"),
        (_set("peephole", np.zeros(3, np.float32)), "weights hold peephole"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    checkpoint().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.load(tmp_path)


def test_what_trained_it_is_asked_before_anything_else(tmp_path: Path) -> None:
    checkpoint().save(tmp_path)
    _write("training.json", "{")(tmp_path)
    with pytest.raises(CheckpointError, match=r"is not a usable checkpoint: training\.json is not JSON"):
        Checkpoint.framework_of(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is missing"):
        Checkpoint.framework_of(tmp_path)


def test_missing_weights_are_named() -> None:
    lacking = weights()
    del lacking["lstm.1.backward.bias_hidden"]
    with pytest.raises(CheckpointError, match=r"weights lack lstm\.1\.backward\.bias_hidden"):
        check_weights(CONFIG, lacking)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"framework": "jax"}, "framework is 'jax'; it must be torch or keras"),
        ({"labels": ("one", "two", "three")}, "3 labels for 2 outputs"),
        (
            {"samples": (np.zeros((4, 2), np.float32),)},
            r"sample 0 is float32 \[4, 2\]; it must be float32 \[steps, 3\]",
        ),
        ({"samples": (np.zeros((4, 3), np.float64),)}, "sample 0 is float64"),
        ({"samples": (np.zeros((0, 3), np.float32),)}, r"sample 0 is float32 \[0, 3\]"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        dataclasses.replace(checkpoint(), **fields)
