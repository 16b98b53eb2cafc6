"""Which backend serves a version, which would serve it next, and what is said when none can."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.backends.base import Candidate, Measured
from serving.errors import BackendUnavailable, RepositoryError
from serving.loading import order as order_of_serving
from serving.loading.order import Order, ServerDefaults
from serving.repository import model_config
from serving.repository.folders import VersionFolder
from tests.support import fake_models

FILES = {
    "onnx_runtime": "model.onnx",
    "torchscript": "model.pt",
    "saved_model": "model.savedmodel",
    "fake": "model.fake.json",
}
ALL = ("onnx_runtime", "torchscript", "saved_model")


def version(folder: Path, formats: Sequence[str], *, described: bool = True) -> VersionFolder:
    """A version that holds (empty) files of these formats."""
    made = fake_models.write(folder) if described else folder / "fake" / "1"
    made.mkdir(parents=True, exist_ok=True)
    (made / FILES["fake"]).unlink(missing_ok=True)
    for name in formats:
        (made / FILES[name]).touch()
    return VersionFolder(1, made)


def order(
    folder: VersionFolder, text: str = "", wishes: ServerDefaults | None = None, measured: Sequence[Measured] = ()
) -> Order:
    return order_of_serving.order(
        model_config.parse(text, "m"), wishes or ServerDefaults(), folder, lambda folder, candidates: measured
    )


def told(candidates: Sequence[Candidate]) -> list[str]:
    return [f"{candidate}x{candidate.threads}" for candidate in candidates]


@pytest.mark.parametrize(
    ("text", "wishes", "first", "spare"),
    [
        (
            'backend: "pytorch"',
            ServerDefaults(),
            ["torchscriptx1"],
            ["onnx_runtimex1", "torchscriptx1", "saved_modelx1"],
        ),
        (
            "",
            ServerDefaults(backend="saved_model", threads=3),
            ["saved_modelx3"],
            ["onnx_runtimex3", "torchscriptx3", "saved_modelx3"],
        ),
        ('backend: "onnx_runtime"', ServerDefaults(fallback="none"), ["onnx_runtimex1"], []),
        (
            'backend: "onnx_runtime" parameters { key: "fallback" value { string_value: "tensorflow, pytorch@cpu" } }',
            ServerDefaults(),
            ["onnx_runtimex1"],
            ["saved_modelx1", "torchscriptx1"],
        ),
        (
            'backend: "onnx_runtime" parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
            ServerDefaults(threads=4, fallback="none"),
            ["onnx_runtimex2"],
            [],
        ),
    ],
)
def test_the_order(text: str, wishes: ServerDefaults, first: list[str], spare: list[str], tmp_path: Path) -> None:
    made = order(version(tmp_path, ALL), text, wishes)
    assert (told(made.first), told(made.spare)) == (first, spare)
    assert len(set(map(str, made.all))) == len(made.all)  # each backend and device once
    assert made.measured == ()


def test_auto_takes_what_was_measured_to_be_best(tmp_path: Path) -> None:
    figures = [
        Measured(Candidate("onnx_runtime", "cpu", 1), {1: 3e-5, 32: 9e-4}),
        Measured(Candidate("torchscript", "cpu", 2), {1: 9e-5, 32: 2e-4}),
        Measured(Candidate("saved_model", "cpu", 1), failed="its golden samples disagree"),
    ]
    folder = version(tmp_path, ALL)
    made = order(folder, measured=figures)
    assert told(made.first) == ["onnx_runtimex1", "torchscriptx2"]
    assert told(made.all) == ["onnx_runtimex1", "torchscriptx2", "saved_modelx1"]
    assert (
        told(order(folder, wishes=ServerDefaults(optimize_for="throughput"), measured=figures).first)[0]
        == "torchscriptx2"
    )
    none = [dataclasses.replace(one, failed="no word for 60 s") for one in figures]
    assert told(order(folder, wishes=ServerDefaults(threads=1), measured=none).first) == [f"{name}x1" for name in ALL]


def test_what_was_measured_is_remembered_until_files_of_other_sizes_come(tmp_path: Path) -> None:
    asked = []

    def measure(folder: VersionFolder, candidates: Sequence[Candidate], *, allow_tf32: bool) -> list[Measured]:
        asked.append(folder.number)
        return [Measured(candidate, {1: 1e-5}) for candidate in candidates]

    first, second = (VersionFolder(number, fake_models.write(tmp_path, version=number)) for number in (1, 2))
    (third := VersionFolder(3, fake_models.write(tmp_path, version=3))).artifact("fake").write_text(
        '{"delay_seconds": 0.25}'
    )
    candidates = [Candidate("fake", "cpu", 1)]
    measurements = order_of_serving.Measurements(allow_tf32=False, measure=measure)
    assert [measurements(folder, candidates) for folder in (first, second, first)] == [
        measurements(first, candidates)
    ] * 3
    measurements(third, candidates)
    assert asked == [1, 3]


def test_one_way_alone_is_not_measured(tmp_path: Path) -> None:
    made = order(version(tmp_path, ("onnx_runtime",)), wishes=ServerDefaults(threads=1))
    assert told(made.all) == ["onnx_runtimex1"]


def test_bare_files_are_not_taken_for_one_model(tmp_path: Path) -> None:
    """Nothing says that they compute the same, so the first that can run here serves and nothing stands by."""
    made = order(version(tmp_path, ("torchscript", "onnx_runtime"), described=False))
    assert (told(made.first), made.spare) == (["onnx_runtimex1"], ())


@pytest.mark.parametrize(
    ("wishes", "text", "at_load"),
    [
        (ServerDefaults(), "", False),
        (ServerDefaults(fallback="always"), "", True),
        (ServerDefaults(), 'parameters { key: "fallback" value { string_value: "torchscript" } }', True),
    ],
)
def test_who_takes_over_at_load_is_configured(wishes: ServerDefaults, text: str, at_load: bool, tmp_path: Path) -> None:
    wishes = dataclasses.replace(wishes, backend="onnx_runtime")
    assert order(version(tmp_path, ALL), text, wishes).spare_at_load is at_load


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
def test_a_version_that_lacks_what_was_asked_for(
    backend: str, formats: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RepositoryError, match=message):
        order(version(tmp_path, formats), wishes=ServerDefaults(backend=backend))


def test_every_reason_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str, extra: str) -> None:
        raise BackendUnavailable("nothing is installed")

    monkeypatch.setattr("serving.machine.devices.require_package", missing)
    with pytest.raises(BackendUnavailable) as refused:
        order(version(tmp_path, ALL))
    assert str(refused.value).endswith(
        "onnx_runtime on cpu, torchscript on cpu, saved_model on cpu: nothing is installed"
    )
    for wishes in (ServerDefaults(), ServerDefaults(device="auto"), ServerDefaults(backend="torchscript")):
        with pytest.raises(BackendUnavailable, match="nothing is installed"):
            order_of_serving.check_defaults(wishes, [])


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="there is a GPU")  # noqa: PTH110
def test_a_gpu_that_is_not_there_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"onnx_runtime on cuda:0: cuda:0 needs an NVIDIA driver"):
        order(version(tmp_path, ALL), 'backend: "onnx_runtime" instance_group { kind: KIND_GPU }')
