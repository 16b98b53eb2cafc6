"""A checkpoint becomes a version that is whole and proven, or none at all."""

from __future__ import annotations

import dataclasses
import errno
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import formats, publish
from export.errors import ExportError
from export.versions import Version
from models import networks
from models.checkpoint import Checkpoint, Weights, weights_digest
from models.config import LSTMConfig
from models.examples import Examples
from serving import backends
from serving.backends.base import Options, artifact_digest
from serving.errors import VerificationFailed
from serving.signature.spec import OWN_FILES, ModelSpec
from serving.verification import golden
from tests.unit.export.conftest import LABELS, trained


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def export(checkpoint: Checkpoint, repository: Path, **changes: Any) -> Version:
    arguments: dict[str, Any] = {"chosen": ("onnx",), "repository": repository, "name": "compass"}
    return publish.publish(checkpoint, **(arguments | changes))


def test_a_version_holds_every_format_and_the_facts(checkpoint: Checkpoint, tmp_path: Path) -> None:
    version = export(checkpoint, tmp_path, chosen=formats.names())
    assert version.path == tmp_path / "compass" / "1"
    expected = {backends.module(formats.writer(form).BACKEND).FILE_NAME for form in formats.names()}
    assert {path.name for path in version.path.iterdir()} == expected | {"spec.json", "golden.npz"}
    assert (tmp_path / "compass" / "labels.txt").read_text().splitlines() == list(LABELS)
    assert {path.name for path in tmp_path.iterdir()} == {"compass"}
    assert [written.format for written in version.written] == list(formats.names())
    for written in version.written:
        assert written.size_bytes > 1000
        assert 0 <= written.largest_difference < 1e-6
    assert max(written.largest_difference for written in version.written) > 0  # it was measured

    spec = ModelSpec.read(version.path / "spec.json")
    assert spec.weights_sha256 == weights_digest(checkpoint.weights)
    assert spec.scores == {"accuracy": 0.9}
    assert spec.labels_of == "y"
    assert spec.source["framework"] == "torch"
    assert spec.source["seed"] == 3
    assert spec.source["export"]["formats"] == list(formats.names())
    made = {path.name: artifact_digest(path) for path in version.path.glob("model.*")}
    assert spec.source["export"][OWN_FILES] == made  # a server knows them as ours
    assert len(made) == len(formats.names())

    samples = golden.read_samples(version.path / "golden.npz")
    assert any(np.isnan(sample.inputs["x"]).any() for sample in samples)
    assert {len(sample.inputs["lengths"]) for sample in samples} == {1, 2, 3, 7}
    for form in formats.names():
        module = backends.module(formats.writer(form).BACKEND)
        backend = module.load(version.path / module.FILE_NAME, spec, "cpu", Options())
        for sample in samples:
            golden.check_agreement(form, backend.run(sample.inputs, ("y", "hn", "cn")), sample.outputs, spec.tolerance)
        backend.close()


def test_values_have_no_labels(tmp_path: Path) -> None:
    config = LSTMConfig(input="tokens", vocabulary=7, embedding=2, hidden=3, head="values_per_step", outputs=2)
    version = export(trained(config), tmp_path)
    spec = ModelSpec.read(version.path / "spec.json")
    assert (spec.labels_of, spec.vocabulary, spec.streamable) == ("", 7, True)
    assert files(tmp_path / "compass") == {"1", "1/model.onnx", "1/spec.json", "1/golden.npz"}


def test_a_version_that_exists_is_never_overwritten(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "compass" / "2").mkdir(parents=True)
    with pytest.raises(ExportError, match="2 exists, and versions are never overwritten"):
        export(checkpoint, tmp_path, version=2)
    with pytest.raises(ExportError, match="counted from 1"):
        export(checkpoint, tmp_path, version=0)
    assert files(tmp_path) == {"compass", "compass/2"}


def test_a_name_that_no_model_can_have_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be used"):
        export(checkpoint, tmp_path / "repository", name="../up")
    assert files(tmp_path) == set()


def test_a_model_that_is_a_file_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "compass").touch()
    with pytest.raises(OSError, match="compass"):
        export(checkpoint, tmp_path)
    assert files(tmp_path) == {"compass"}


def test_other_classes_under_one_name_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "compass").mkdir()
    (tmp_path / "compass" / "labels.txt").write_text("up\ndown\n")
    with pytest.raises(ExportError, match="names other classes"):
        export(checkpoint, tmp_path)
    assert files(tmp_path) == {"compass", "compass/labels.txt"}


@pytest.mark.parametrize("form", formats.names())
def test_a_file_with_two_gates_swapped_is_not_published(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    writer = formats.writer(form)
    right = writer.write

    def wrong(config: LSTMConfig, weights: Weights, path: Path, stored: object = None) -> None:
        swapped = dict(weights)
        for name in [name for name in weights if name.startswith("lstm.1.")]:
            i, f, g, o = np.split(weights[name], 4)
            swapped[name] = np.concatenate([f, i, g, o])
        right(config, swapped, path)

    monkeypatch.setattr(writer, "write", wrong)
    with pytest.raises(VerificationFailed, match=rf"{form} \(samples, .* differs from the trained model by 0\.\d"):
        export(checkpoint, tmp_path, chosen=(form,))
    assert files(tmp_path) == set()


@pytest.mark.parametrize("precision", ["fp16", "int8-weights"])
def test_the_rounded_network_is_proven_and_scored(checkpoint: Checkpoint, tmp_path: Path, precision: str) -> None:
    generator = np.random.default_rng(1)
    sequences = [generator.normal(size=(6, 3)).astype(np.float32) for _ in range(40)]
    network = networks.load(checkpoint)
    classes = np.array([network.predict({"x": sequence[None]})["y"][0].argmax() for sequence in sequences])
    test = Examples(sequences, classes)  # on which the trained network is never wrong
    known = dataclasses.replace(checkpoint, test=test, training={"scores": {"test_accuracy": 1.0, "epochs": 3}})
    version = export(known, tmp_path, precision=precision, chosen=formats.names())
    assert version.rounding
    assert 1e-5 < version.rounding.largest_difference < 0.1
    assert version.rounding.scores["test_accuracy"] >= 0.9
    spec = ModelSpec.read(version.path / "spec.json")
    assert spec.scores == {"epochs": 3, **version.rounding.scores}
    assert spec.source["precision"]["precision"] == precision
    assert spec.weights_sha256 != weights_digest(checkpoint.weights)
    assert max(written.largest_difference for written in version.written) < 1e-6


def test_a_tolerance_that_nothing_meets_refuses(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(
        VerificationFailed,
        match=r"at most 1e-12 is allowed; float32 itself is .* so that is rounding; allow it with --tol",
    ):
        export(checkpoint, tmp_path, tolerance=1e-12)
    with pytest.raises(ExportError, match=r"between 0 and 0\.1"):
        export(checkpoint, tmp_path, tolerance=0.0)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("second", [False, True], ids=["first version", "second version"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["export.versions.golden.write_samples", "os.fsync", "pathlib.Path.rename"])
def test_a_failure_in_the_middle_leaves_nothing(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    failure: BaseException,
    second: bool,
) -> None:
    if second:
        export(checkpoint, tmp_path)
    before = files(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(place, fail)
    with pytest.raises(type(failure)):
        export(checkpoint, tmp_path)
    assert files(tmp_path) == before


def test_exports_of_the_same_moment_get_numbers_of_their_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(export(checkpoint, tmp_path).path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in paths) == ["1", "2", "3", "4"]
    assert all(len(list(path.iterdir())) == 3 for path in paths)
