"""What counts as a model and a version on disk, and what is said of a folder that is neither."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.errors import RepositoryError, VerificationFailed
from serving.repository.folders import MAX_TEXT_BYTES, Repository
from serving.signature.spec import ModelSpec
from serving.verification import golden
from tests.support import fake_models


def test_models_and_versions(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        fake_models.write(tmp_path, "b", version)
    fake_models.write(tmp_path, "a")
    for stray in ("b/.3.tmp", "b/007", "b/latest", "b/0", ".hidden", "bad\udcff"):
        (tmp_path / stray).mkdir()
    (tmp_path / "README").write_text("a file is no model")
    repository = Repository(tmp_path)
    assert repository.models() == ["a", "b"]
    assert [version.number for version in repository.versions("b")] == [1, 2, 10]
    assert repository.versions("a")[0].formats() == ("fake",)
    assert repository.config_text("a") is None


def test_a_fingerprint_changes_with_every_file_but_those_that_are_being_written(tmp_path: Path) -> None:
    version = fake_models.write(tmp_path / "there")
    repository = Repository(tmp_path / "there")
    looks = [repository.fingerprint("fake")]

    def changed() -> bool:
        looks.append(repository.fingerprint("fake"))
        return looks[-1] != looks[-2]

    assert not changed()
    (version / "model.savedmodel" / "variables").mkdir(parents=True)
    assert not changed(), "an empty folder holds nothing"
    for path in (version / "model.savedmodel" / "variables" / "data", version.parent / "config.pbtxt"):
        path.write_text("a")
        assert changed()
        path.write_text("b, and longer")
        assert changed()
    version.rename(version.with_name(".1.old"))
    assert changed()
    (version.with_name(".1.old") / "model.onnx").touch()
    assert not changed()
    for target in ("here", "elsewhere"):
        (tmp_path / "link").symlink_to(tmp_path / target)
        (tmp_path / "link").rename(version)
        assert changed(), "a link was turned"


def test_a_fingerprint_follows_links_to_files(tmp_path: Path) -> None:
    """As in Kubernetes, where a ConfigMap is a link to a link that is turned: neither the file nor its link changes."""
    model = fake_models.write(tmp_path / "repository").parent
    repository = Repository(tmp_path / "repository")
    for name in ("..first", "..second"):
        (model / name).mkdir()
        (model / name / "config.pbtxt").write_text("max_batch_size: 4")
        os.utime(model / name / "config.pbtxt", ns=(0, 0))
    (model / "..data").symlink_to("..first")
    (model / "config.pbtxt").symlink_to("..data/config.pbtxt")
    before = repository.fingerprint("fake")
    assert repository.fingerprint("fake") == before
    (model / "turned").symlink_to("..second")
    (model / "turned").rename(model / "..data")
    turned = repository.fingerprint("fake")
    assert turned != before
    (model / "..second" / "config.pbtxt").write_text("max_batch_size: 8")
    assert repository.fingerprint("fake") != turned
    (model / "..second" / "config.pbtxt").unlink()
    assert repository.fingerprint("fake") != turned, "a link to nothing is something too"


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="does not exist; name one with --model-repository"):
        Repository(tmp_path / "nowhere")


def test_a_model_without_versions(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(RepositoryError, match="holds no version: a version is a folder named by a whole number"):
        Repository(tmp_path).versions("m")


def test_texts_are_small_plain_files(tmp_path: Path) -> None:
    fake_models.write(tmp_path, "m")
    repository = Repository(tmp_path)
    assert repository.labels("m") == ()
    (tmp_path / "m" / "labels.txt").write_text("cold\nvery warm\n\u2028odd\n")
    assert repository.labels("m") == ("cold", "very warm", "\u2028odd")
    os.mkfifo(tmp_path / "m" / "config.pbtxt")
    with pytest.raises(RepositoryError, match=r"config.pbtxt is no plain file"):
        repository.config_text("m")
    (tmp_path / "m" / "config.pbtxt").unlink()
    (tmp_path / "m" / "config.pbtxt").write_text(" " * (MAX_TEXT_BYTES + 1))
    with pytest.raises(RepositoryError, match=f"has {MAX_TEXT_BYTES + 1} bytes; at most"):
        repository.config_text("m")


def test_golden_samples_are_not_unpacked_to_any_size(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    np.savez_compressed(path, **{"0/in/x": np.zeros(golden.MAX_BYTES // 4 + 1, np.float32)})
    assert path.stat().st_size < golden.MAX_BYTES / 100
    with pytest.raises(RepositoryError, match=f"at most {golden.MAX_BYTES} are replayed"):
        golden.read_samples(path)


def test_the_specification_survives_the_file(tmp_path: Path) -> None:
    for original in (fake_models.spec(), fake_models.spec(vocabulary=5, per_step=True)):
        (tmp_path / "spec.json").write_text(original.to_json())
        assert ModelSpec.read(tmp_path / "spec.json") == original


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
        (_json(lambda f: f.update(surprise=1)), "surprise"),
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


def test_golden_samples_survive_the_file(tmp_path: Path) -> None:
    samples = [
        golden.Sample({"x": np.ones((2, 3), np.float32)}, {"y": np.zeros((2,), np.float32)}),
        golden.Sample({"x": np.ones((1, 9), np.float32)}, {"y": np.ones((1,), np.float32)}),
    ]
    golden.write_samples(tmp_path / "golden.npz", samples)
    for got, expected in zip(golden.read_samples(tmp_path / "golden.npz"), samples, strict=True):
        np.testing.assert_array_equal(got.inputs["x"], expected.inputs["x"])
        np.testing.assert_array_equal(got.outputs["y"], expected.outputs["y"])


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


def test_a_disagreement_says_by_how_much() -> None:
    with pytest.raises(VerificationFailed, match=r"m in b: y differs from the trained model by 0.5 .*at most 1e-05"):
        golden.check_agreement("m in b", {"y": np.array([0.5])}, {"y": np.array([0.0])}, 1e-5)
