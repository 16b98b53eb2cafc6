"""Which backend serves a version, and what is said when none can."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import config, golden, loader
from serving.backends.base import Options
from serving.backends.fake import FakeBackend
from serving.batcher import BatchPolicy
from serving.errors import BackendUnavailable, RepositoryError
from serving.loader import Placement, choose
from serving.repository import Repository
from serving.server import check_placement
from tests import fake_models

ALL = ("onnx_runtime", "torchscript", "saved_model")


@pytest.mark.parametrize(
    ("backend", "device", "formats", "expected"),
    [
        ("auto", "cpu", ALL, ("onnx_runtime", "cpu")),
        ("auto", "cpu", ("torchscript", "saved_model"), ("torchscript", "cpu")),
        ("saved_model", "cpu", ALL, ("saved_model", "cpu")),
        ("auto", "auto", ("fake",), ("fake", "cpu")),
        ("fake", "auto", ("onnx_runtime", "fake"), ("fake", "cpu")),
    ],
)
def test_the_choice(backend: str, device: str, formats: tuple[str, ...], expected: tuple[str, str]) -> None:
    assert choose(backend, device, formats) == expected


@pytest.mark.parametrize(
    ("backend", "formats", "message"),
    [
        ("auto", (), "holds no model file; one of model.onnx, model.pt, model.savedmodel is needed"),
        (
            "torchscript",
            ("onnx_runtime",),
            "torchscript was asked for, but the version has no model.pt; .* by onnx_runtime",
        ),
    ],
)
def test_a_version_that_lacks_what_was_asked_for(backend: str, formats: tuple[str, ...], message: str) -> None:
    with pytest.raises(RepositoryError, match=message):
        choose(backend, "cpu", formats)


def test_every_reason_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str, extra: str) -> None:
        raise BackendUnavailable("nothing is installed")

    monkeypatch.setattr("serving.devices.require_package", missing)
    with pytest.raises(BackendUnavailable) as refused:
        choose("auto", "cpu", ALL)
    assert str(refused.value).endswith(
        "onnx_runtime on cpu, torchscript on cpu, saved_model on cpu: nothing is installed"
    )
    for placement in (Placement(), Placement(device="auto"), Placement(backend="torchscript")):
        with pytest.raises(BackendUnavailable, match="nothing is installed"):
            check_placement(placement)


def test_a_sample_that_leaves_an_output_out_verifies_nothing(tmp_path: Path) -> None:
    folder = fake_models.write(tmp_path)
    (sample,) = golden.read_samples(folder / "golden.npz")
    backend = FakeBackend(fake_models.spec(), 0.0, None, None)
    assert loader.verify(backend, fake_models.spec(), [sample], 1e-5, "it") == 0
    less = golden.Sample(sample.inputs, {"hn": sample.outputs["hn"]})
    with pytest.raises(loader.VerificationFailed, match="it: a golden sample says nothing of y, cn"):
        loader.verify(backend, fake_models.spec(), [sample, less], 1e-5, "it")


@pytest.mark.parametrize(
    ("device", "allow_tf32", "expected"),
    [("cpu", False, 1e-5), ("cpu", True, 1e-5), ("cuda:0", False, 1e-5), ("cuda:1", True, loader.TF32_TOLERANCE)],
)
def test_tf32_has_a_tolerance_of_its_own(device: str, allow_tf32: bool, expected: float) -> None:
    assert loader.tolerance(fake_models.spec(), device, Options(allow_tf32=allow_tf32)) == expected


def test_a_model_that_fails_its_samples_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_models.write(tmp_path, fail_on=1.0)
    closed = []

    def close(self: FakeBackend) -> None:
        closed.append(self)

    monkeypatch.setattr(FakeBackend, "close", close)
    repository = Repository(tmp_path)
    choices = config.Choices(
        written=config.parse(None, "fake").written, policy=BatchPolicy(), backend=None, device=None
    )
    with pytest.raises(loader.VerificationFailed, match=r"asked to fail on 1.0"):
        loader.load(repository, "fake", repository.versions("fake")[0], choices, Placement())
    assert len(closed) == 1
