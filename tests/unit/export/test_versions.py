"""What a version may be called, and how it appears: whole, durable, under a number of its own, or not at all."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export import canonical
from export.errors import ExportError
from export.versions import Target, Written, begun, check_name, check_version, finish, next_version, what_can_be
from models.config import LSTMConfig
from serving.errors import VerificationFailed
from serving.signature.spec import ModelSpec
from serving.verification.golden import Sample

CONFIG = LSTMConfig(features=2, hidden=3, outputs=2)
SPEC = ModelSpec(
    inputs=canonical.inputs(CONFIG),
    outputs=canonical.outputs(CONFIG),
    lengths=canonical.LENGTHS,
    state=canonical.STATE,
    streamable=True,
    tolerance=1e-5,
    weights_sha256="",
)
SAMPLES = [Sample({"x": np.ones((1, 1, 2), np.float32)}, {"y": np.ones((1, 2), np.float32)})]


def appear(
    repository: Path, version: int | None = None, labels: str = "up\ndown\n", spec: ModelSpec = SPEC, **more: Any
) -> Path:
    """A version of one file appears in `repository/compass`."""
    with begun(repository) as folder:
        (folder / "model.onnx").write_text("a model")
        return finish(folder, repository / "compass", version, spec, SAMPLES, labels, **more)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


WHOLE = {"1", "1/model.onnx", "1/spec.json", "1/golden.npz"}


@pytest.mark.parametrize("name", ["a", "A1", "vowels_torch", "x-1.2", "7", "a" * 128])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "-x", "a b", "ä", "a" * 129, "a\n"])
def test_a_name_is_one_plain_component(name: str) -> None:
    with pytest.raises(ExportError, match="cannot be used"):
        check_name(name)


@pytest.mark.parametrize(
    ("entries", "following"),
    [([], 1), (["1"], 2), (["2", "10"], 11), (["notes", "labels.txt", ".3"], 1), (["007"], 8), (["٣"], 1)],
)
def test_the_next_number_is_one_more_than_the_highest_there(entries: list[str], following: int, tmp_path: Path) -> None:
    for entry in entries:
        (tmp_path / entry).mkdir()
    assert next_version(tmp_path) == following
    assert next_version(tmp_path / "none") == 1


def test_a_number_is_used_once(tmp_path: Path) -> None:
    (tmp_path / "2").symlink_to(tmp_path / "gone")
    check_version(tmp_path, 1)
    for number, message in ((0, "version is 0; versions are counted from 1"), (2, "2 exists, and versions are never")):
        with pytest.raises(ExportError, match=message):
            check_version(tmp_path, number)


def test_a_target_checks_its_name_and_a_number_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    Target(repository=tmp_path, name="m").check()
    for target in (Target(repository=tmp_path, name=".m"), Target(repository=tmp_path, name="m", version=1)):
        with pytest.raises(ExportError):
            target.check()


def test_the_first_version_appears_with_the_models_folder_and_its_labels(tmp_path: Path) -> None:
    assert appear(tmp_path) == tmp_path / "compass" / "1"
    assert files(tmp_path / "compass") == WHOLE | {"labels.txt"}
    assert (tmp_path / "compass" / "labels.txt").read_text() == "up\ndown\n"
    assert files(tmp_path) == {"compass", *(f"compass/{name}" for name in files(tmp_path / "compass"))}


def test_without_labels_there_is_no_file_of_labels(tmp_path: Path) -> None:
    appear(tmp_path, labels="")
    assert files(tmp_path / "compass") == WHOLE


def test_a_model_without_labels_gets_them_with_a_later_version_and_keeps_what_it_has(tmp_path: Path) -> None:
    appear(tmp_path, labels="")
    appear(tmp_path, labels="first\n")
    appear(tmp_path, labels="second\n")
    assert (tmp_path / "compass" / "labels.txt").read_text() == "first\n"


def test_a_model_whose_state_is_to_be_kept_says_so(tmp_path: Path) -> None:
    appear(tmp_path, labels="", keeps_state=True)
    assert files(tmp_path / "compass") == WHOLE | {"config.pbtxt"}
    assert (tmp_path / "compass" / "config.pbtxt").read_text() == "sequence_batching {}\n"


def test_a_model_that_is_there_keeps_its_configuration_and_gets_that_line(tmp_path: Path) -> None:
    appear(tmp_path, labels="")
    config = tmp_path / "compass" / "config.pbtxt"
    config.write_text("max_batch_size: 8\n")
    appear(tmp_path, labels="")
    assert config.read_text() == "max_batch_size: 8\n"
    for number in (3, 4):
        assert appear(tmp_path, labels="", keeps_state=True).name == str(number)
        assert config.read_text() == "max_batch_size: 8\nsequence_batching {}\n"


def test_where_the_state_cannot_be_kept_nothing_appears(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the model cannot be stateful"):
        appear(tmp_path, spec=dataclasses.replace(SPEC, streamable=False), keeps_state=True)
    assert files(tmp_path) == set()
    (tmp_path / "compass").mkdir()
    (tmp_path / "compass" / "config.pbtxt").write_text("dynamic_batching {}")
    with pytest.raises(ExportError, match="has dynamic_batching, which cannot stand beside"):
        appear(tmp_path, keeps_state=True)
    assert files(tmp_path) == {"compass", "compass/config.pbtxt"}


def test_what_is_not_finished_is_gone(tmp_path: Path) -> None:
    def interrupted() -> None:
        with begun(tmp_path / "repository") as folder:
            (folder / "model.onnx").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert files(tmp_path) == {"repository"}


def test_a_version_in_the_making_is_hidden(tmp_path: Path) -> None:
    with begun(tmp_path) as folder:
        assert folder.parent.name.startswith(".")
        assert folder.parent.parent == tmp_path


def test_numbers_count_up_and_gaps_stay(tmp_path: Path) -> None:
    (tmp_path / "compass" / "7").mkdir(parents=True)
    assert [appear(tmp_path, version).name for version in (None, 3, None)] == ["8", "3", "9"]


def test_exports_of_the_same_moment_get_numbers_of_their_own(tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(appear(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in paths) == [str(number) for number in range(1, 9)]
    assert all(files(path) == {"model.onnx", "spec.json", "golden.npz"} for path in paths)


def test_everything_is_on_disk_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    appear(tmp_path)
    assert {"model.onnx", "spec.json", "golden.npz"} == set(synced[:3])
    assert synced[3:] == ["version", "labels.txt", "model", tmp_path.name]


def test_a_number_taken_at_the_last_moment_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compass" / "notes").mkdir(parents=True)
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        if target == tmp_path / "compass" / "1":
            target.mkdir(exist_ok=True)
            (target / "theirs").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    assert appear(tmp_path).name == "2"
    (tmp_path / "compass" / "1" / "theirs").unlink()
    (tmp_path / "compass" / "1").rmdir()
    with pytest.raises(ExportError, match="by another export meanwhile"):
        appear(tmp_path, 1)
    assert files(tmp_path / "compass" / "1") == {"theirs"}


def test_what_a_killed_export_has_left_is_swept_by_the_next(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from export.versions import begun\n"
        "with begun(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'model.onnx').write_text('half'); print('begun', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stdout.readline() == "begun\n"
        appear(tmp_path)
        assert len(list(tmp_path.glob(".export-*"))) == 1, "what is in the making stays"
        running.kill()
    assert len(list(tmp_path.glob(".export-*"))) == 1
    appear(tmp_path)
    assert not list(tmp_path.glob(".export-*"))


def test_only_folders_of_exports_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".export-notes").write_text("a file")
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".export-link").symlink_to(tmp_path / "theirs")
    appear(tmp_path)
    assert {".export-notes", ".export-link", "theirs"} < files(tmp_path)


def test_a_folder_that_is_swept_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    mkdtemp = tempfile.mkdtemp

    def swept_once(*arguments: Any, **keywords: Any) -> str:
        made.append(Path(mkdtemp(*arguments, **keywords)))
        return str(made[-1])

    flock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        if len(made) == 1:
            made[0].rmdir()
            made.append(made[0])
        flock(descriptor, how)

    monkeypatch.setattr(tempfile, "mkdtemp", swept_once)
    monkeypatch.setattr(fcntl, "flock", late)
    assert (appear(tmp_path) / "model.onnx").is_file()
    assert len(made) == 3


def writes(folder: Path, bad: dict[str, Exception]) -> Callable[[str], Written]:
    def write(form: str) -> Written:
        (folder / f"model.{form}").mkdir()
        (folder / f"model.{form}.data").touch()
        if form in bad:
            raise bad[form]
        return Written(form, 1, 0.0)

    return write


def test_every_format_that_can_be_had(tmp_path: Path) -> None:
    write = writes(tmp_path, {"b": ExportError("b cannot")})
    written, failed = what_can_be("abc", write, tmp_path, every=True)
    assert [each.format for each in written] == ["a", "c"]
    assert [(each.format, each.why) for each in failed] == [("b", "b cannot")]
    assert files(tmp_path) == {"model.a", "model.a.data", "model.c", "model.c.data"}


def test_a_format_that_was_asked_for_must_be_had(tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="b differs"):
        what_can_be("abc", writes(tmp_path, {"b": VerificationFailed("b differs")}), tmp_path, every=False)


def test_no_format_at_all(tmp_path: Path) -> None:
    bad: dict[str, Exception] = {"a": ExportError("a cannot"), "b": VerificationFailed("b differs")}
    with pytest.raises(ExportError, match=r"^a cannot; b differs$"):
        what_can_be("ab", writes(tmp_path, bad), tmp_path, every=True)
