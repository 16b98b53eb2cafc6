"""Which backend serves a version, which would serve it next, and what is said when none can."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving import backends
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
    folder: VersionFolder,
    text: str = "",
    wishes: ServerDefaults | None = None,
    measured: Sequence[Measured] = (),
    serving: Candidate | None = None,
) -> Order:
    known = {one.candidate: one for one in measured}
    config = model_config.parse(text, "m")
    return order_of_serving.order(config, wishes or ServerDefaults(), folder, lambda *_: known, serving)


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


def figures(**microseconds: float) -> list[Measured]:
    """Of one row, with one thread on the CPU, by backend."""
    return [Measured(Candidate(name, "cpu", 1), {1: each / 1e6}) for name, each in microseconds.items()]


def of(name: str) -> Candidate:
    return Candidate(name, "cpu", 1)


@pytest.fixture
def nothing_is_brought_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.backends.brought_in", lambda name: False)


ONE = ServerDefaults(threads=1)


def test_what_nothing_is_known_of_is_served_by_rule_and_waits_to_be_measured(tmp_path: Path) -> None:
    """ONNX Runtime, then the smallest start; the fewest threads."""
    for formats in (ALL, ALL[1:], ALL[2:]):
        made = order(version(tmp_path / formats[0], formats))
        assert told(made.first) == [f"{name}x1" for name in formats]
        if len(made.possible) > 1:
            assert (made.how, made.measured, made.unmeasured) == (order_of_serving.RULE, (), made.possible)


@pytest.mark.usefixtures("nothing_is_brought_in")
@pytest.mark.parametrize(
    ("which", "how"), [("onnx_runtime", order_of_serving.RULE), ("torchscript", order_of_serving.MEASURED)]
)
def test_what_could_not_be_measured_by_chance_is_not_left_out(which: str, how: str, tmp_path: Path) -> None:
    """It may serve, and it may take over: nothing is known to be wrong with it."""
    chance = Measured(of(which), failed="its process was ended by somebody else", by_chance=True)
    known = [
        one for one in figures(onnx_runtime=50, torchscript=49, saved_model=40) if one.candidate != chance.candidate
    ]
    made = order(version(tmp_path, ALL), wishes=ONE, measured=[*known, chance])
    assert (made.how, made.unmeasured) == (how, ())
    assert told(made.first)[0] == "onnx_runtimex1"
    assert set(told(made.first)) == {"onnx_runtimex1", "torchscriptx1", "saved_modelx1"}


@pytest.mark.usefixtures("nothing_is_brought_in")
def test_auto_takes_what_is_known_to_be_best(tmp_path: Path) -> None:
    known = [
        Measured(of("onnx_runtime"), {1: 9e-5, 32: 9e-4}),
        Measured(of("torchscript"), {1: 3e-5, 32: 2e-3}),
        Measured(of("saved_model"), failed="its golden samples disagree"),
    ]
    folder = version(tmp_path, ALL)
    made = order(folder, wishes=ONE, measured=known)
    assert (made.how, made.unmeasured) == (order_of_serving.MEASURED, ())
    assert told(made.first) == ["torchscriptx1", "onnx_runtimex1"]
    assert told(made.all) == ["torchscriptx1", "onnx_runtimex1", "saved_modelx1"]
    by_throughput = dataclasses.replace(ONE, optimize_for="throughput")
    assert told(order(folder, wishes=by_throughput, measured=known).first)[0] == "onnx_runtimex1"
    none = [dataclasses.replace(one, failed="no word for 60 s") for one in known]
    assert told(order(folder, wishes=ONE, measured=none).first) == [f"{name}x1" for name in ALL]


@pytest.mark.usefixtures("nothing_is_brought_in")
@pytest.mark.parametrize(
    ("known", "serving", "first"),
    [
        (figures(onnx_runtime=130, torchscript=100, saved_model=400), None, "onnx_runtime"),
        (figures(onnx_runtime=130, torchscript=100, saved_model=400), "torchscript", "torchscript"),
        (figures(onnx_runtime=89, torchscript=140, saved_model=400), "torchscript", "onnx_runtime"),
        (figures(onnx_runtime=100, torchscript=140, saved_model=400), "torchscript", "torchscript"),
        (figures(torchscript=140, saved_model=400), None, "onnx_runtime"),
        (figures(torchscript=100, onnx_runtime=900), None, "torchscript"),
    ],
    ids=[
        "not worth a framework",
        "what serves stays",
        "worth one",
        "to go back would be a framework, too",
        "nothing is known of the first",
        "the rest can wait",
    ],
)
def test_another_one_must_be_worth_a_change(
    known: list[Measured], serving: str | None, first: str, tmp_path: Path
) -> None:
    made = order(version(tmp_path, ALL), wishes=ONE, measured=known, serving=of(serving) if serving else None)
    assert made.first[0] == of(first)
    assert set(made.unmeasured) == {of(name) for name in ALL} - {one.candidate for one in known}


def test_on_a_machine_with_a_gpu_no_runtime_is_imported_to_say_whether_it_can_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start would wait for it. Whether it can is found when it is loaded or measured."""
    monkeypatch.setattr("serving.machine.devices.require_gpu", lambda index: None)
    for name in ("_onnxruntime", "_torch", "_tensorflow"):
        (module,) = (backends.module(each) for each in ALL if hasattr(backends.module(each), name))
        monkeypatch.setattr(module, name, None)
    made = order(version(tmp_path, ALL), wishes=ServerDefaults(device="auto", threads=1))
    assert told(made.first[:3]) == ["onnx_runtime@cuda:0x1", "onnx_runtimex1", "torchscript@cuda:0x1"]
    assert len(made.possible) == 6


def test_one_way_alone_is_not_measured(tmp_path: Path) -> None:
    made = order(version(tmp_path, ("onnx_runtime",)), wishes=ONE)
    assert told(made.all) == ["onnx_runtimex1"]
    assert (made.how, made.possible) == (order_of_serving.ONLY, ())


def test_what_was_asked_for_is_not_measured(tmp_path: Path) -> None:
    made = order(version(tmp_path, ALL), 'backend: "pytorch"', measured=figures(onnx_runtime=1, torchscript=100))
    assert told(made.first) == ["torchscriptx1"]
    assert (made.how, made.possible) == (order_of_serving.ASKED, ())


def test_bare_files_are_not_taken_for_one_model(tmp_path: Path) -> None:
    """Nothing says that they compute the same, so the first that can run here serves and nothing stands by."""
    made = order(version(tmp_path, ("torchscript", "onnx_runtime"), described=False))
    assert (told(made.first), made.spare) == (["onnx_runtimex1"], ())
    assert (made.how, made.possible) == (order_of_serving.RULE, ())


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
        (
            "auto",
            (),
            "holds no model file; one of model.onnx, model.pt, model.savedmodel is needed in .*: export it again$",
        ),
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


def test_where_the_file_has_another_name_because_config_pbtxt_says_so(tmp_path: Path) -> None:
    folder = version(tmp_path, ())
    (folder.path / "net.onnx").write_bytes(b"something")
    with pytest.raises(RepositoryError, match=r"net\.onnx: .*take default_model_filename: 'net\.onnx' out of config"):
        order(folder, 'default_model_filename: "net.onnx"')


def test_who_has_written_the_sequences_of_a_store_goes_on_with_them(tmp_path: Path) -> None:
    """Where that is one of those that may serve."""
    auto = order(version(tmp_path, ALL))
    before = auto.preferring("torchscript")
    assert before.first[0].backend == "torchscript"
    assert set(before.first) == set(auto.first)
    assert auto.preferring("").first == auto.preferring("gone").first == auto.first
