"""What is known of how fast a version is: of its very files, at the next start too; of files that are alike, for now."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.backends.base import Candidate, Measured
from serving.errors import StartupError
from serving.loading.measurements import FOLDER, MOST_FIGURES, Measurements, checked_cache, measured_key, user_cache
from serving.repository.folders import VersionFolder
from tests.support import fake_models

ONE, TWO = Candidate("fake", "cpu", 1), Candidate("fake", "cpu", 2)
BOTH = (ONE, TWO)
FAILED = Measured(TWO, failed="its process ended with signal 11")


def figure(candidate: Candidate = ONE, seconds: float = 1e-5) -> Measured:
    return Measured(candidate, {1: seconds, 8: 4 * seconds, 32: 10 * seconds})


@pytest.fixture
def folder(tmp_path: Path) -> VersionFolder:
    return VersionFolder(1, fake_models.write(tmp_path / "r"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def fresh(cache: Path) -> Callable[[], Measurements]:
    """Another server, which knows what is on disk."""
    return lambda: Measurements(cache=lambda: cache)


def entry(folder: VersionFolder) -> Path:
    (found,) = (folder.path.parent / FOLDER).iterdir()
    return found


def test_what_was_measured_is_known_at_once_and_at_the_next_start(
    folder: VersionFolder, fresh: Callable[[], Measurements]
) -> None:
    first = fresh()
    assert first.find(folder, BOTH) == {}
    first.keep(folder, BOTH, [figure()])
    assert first.find(folder, BOTH) == {ONE: figure()}
    first.keep(folder, BOTH, [figure(TWO, 2e-5)])
    for measurements in (first, fresh()):
        assert measurements.find(folder, BOTH) == {ONE: figure(), TWO: figure(TWO, 2e-5)}
        assert measurements.find(folder, (TWO,)) == {TWO: figure(TWO, 2e-5)}
    assert entry(folder).parent == folder.path.parent / ".measured"


def test_what_another_server_has_measured_is_not_lost(folder: VersionFolder, fresh: Callable[[], Measurements]) -> None:
    fresh().keep(folder, BOTH, [figure()])
    fresh().keep(folder, BOTH, [figure(TWO)])
    assert fresh().find(folder, BOTH) == {ONE: figure(), TWO: figure(TWO)}


def test_what_failed_is_known_as_long_as_the_server_lives(
    folder: VersionFolder, fresh: Callable[[], Measurements]
) -> None:
    first = fresh()
    first.keep(folder, BOTH, [figure(), figure(TWO)])
    first.keep(folder, BOTH, [FAILED])
    assert first.find(folder, BOTH) == {ONE: figure(), TWO: FAILED}
    assert fresh().find(folder, BOTH) == {ONE: figure()}, "the next start tries it again"


def test_what_lies_in_several_places_is_put_together(
    folder: VersionFolder, cache: Path, fresh: Callable[[], Measurements]
) -> None:
    """Beside a model that cannot be written there may be a part, brought with it; its own figures go first."""
    fresh().keep(folder, BOTH, [figure(seconds=9e-5), figure(TWO)])
    cache.mkdir(mode=0o700)
    whole = entry(folder).rename(cache / entry(folder).name)
    fields = json.loads(whole.read_text())
    (folder.path.parent / FOLDER / whole.name).write_text(json.dumps(fields | {"figures": [GOOD]}))
    assert fresh().find(folder, BOTH) == {ONE: figure(), TWO: figure(TWO)}


def test_figures_of_other_rows_than_those_measured_are_not_kept(
    folder: VersionFolder, fresh: Callable[[], Measurements]
) -> None:
    first = fresh()
    with pytest.raises(ValueError, match=r"figures are kept of \[1, 8, 32\] rows"):
        first.keep(folder, BOTH, [figure(), Measured(TWO, {7: 1e-5})])
    assert first.find(folder, BOTH) == fresh().find(folder, BOTH) == {}


@pytest.mark.parametrize("name", ["model.fake.json", "spec.json", "golden.npz"])
def test_what_was_found_of_files_that_have_been_exchanged_meanwhile_is_not_kept(
    name: str, folder: VersionFolder, fresh: Callable[[], Measurements]
) -> None:
    first = fresh()
    key = first.key(folder, BOTH)
    assert first.keep(folder, BOTH, [figure()], key)
    with (folder.path / name).open("ab") as file:
        file.write(b" ")
    assert not first.keep(folder, BOTH, [figure(TWO)], key)
    assert fresh().find(folder, BOTH) == {}
    shutil.rmtree(folder.path)
    assert not first.keep(folder, BOTH, [figure(TWO)], key)


def test_who_looks_does_not_wait_for_the_disk_that_is_being_written(
    folder: VersionFolder, fresh: Callable[[], Measurements], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, writing, go_on = fresh(), threading.Event(), threading.Event()

    def hangs(*_: object) -> list[str]:
        writing.set()
        assert go_on.wait(30)
        return []

    monkeypatch.setattr("serving.loading.kept.Kept.keep", hangs)
    writer = threading.Thread(target=first.keep, args=(folder, BOTH, [figure()]))
    writer.start()
    assert writing.wait(30)
    looker = threading.Thread(target=first.find, args=(folder, BOTH), daemon=True)
    looker.start()
    looker.join(30)
    waited = looker.is_alive()
    go_on.set()
    writer.join(30)
    assert not waited


def test_a_version_that_is_alike_is_not_measured_again(
    folder: VersionFolder, tmp_path: Path, fresh: Callable[[], Measurements]
) -> None:
    """The time of an LSTM does not depend on its weights. What failed may have been the fault of the file."""
    second = VersionFolder(2, fake_models.write(tmp_path / "r", version=2))
    with (second.path / "spec.json").open("a") as file:
        file.write("\n")
    other = VersionFolder(3, fake_models.write(tmp_path / "r", version=3, delay_seconds=0.25))
    first = fresh()
    first.keep(folder, BOTH, [figure(), FAILED])
    assert first.find(second, BOTH) == {ONE: figure()}
    assert first.find(other, BOTH) == {}
    first.keep(second, BOTH, [Measured(ONE, failed="damaged")])
    assert first.find(second, BOTH)[ONE].failed == "damaged"
    assert first.find(folder, BOTH)[ONE] == figure()
    assert fresh().find(second, BOTH) == {}


def test_without_a_folder_to_write_in_it_is_kept_in_the_cache(
    folder: VersionFolder, cache: Path, fresh: Callable[[], Measurements]
) -> None:
    (folder.path.parent / FOLDER).write_text("no folder")
    fresh().keep(folder, BOTH, [figure()])
    assert fresh().find(folder, BOTH) == {ONE: figure()}
    assert cache.stat().st_mode & 0o777 == 0o700


def test_nowhere_is_told_once(folder: VersionFolder, caplog: pytest.LogCaptureFixture) -> None:
    (folder.path.parent / FOLDER).write_text("no folder")
    off = Measurements(cache=lambda: None)
    for seconds in (1e-5, 2e-5):
        off.keep(folder, BOTH, [figure(seconds=seconds)])
    assert off.find(folder, BOTH) == {ONE: figure(seconds=2e-5)}
    assert len([said for said in caplog.messages if "so every start measures again when nobody asks" in said]) == 1
    assert Measurements(cache=lambda: None).find(folder, BOTH) == {}


def test_what_it_is_remembered_by(folder: VersionFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(places: tuple[str, ...] = ("cpu",), cpus: int = 2, *, allow_tf32: bool = False) -> str:
        return json.dumps(measured_key(folder, places, cpus, allow_tf32=allow_tf32), sort_keys=True)

    found = [key(), key(cpus=4), key(allow_tf32=True), key(("cpu", "cuda:0"))]
    monkeypatch.setattr("serving.machine.devices.gpu", lambda index: f"GPU {index}")
    found.append(key(("cpu", "cuda:0")))
    monkeypatch.setattr("serving.machine.devices.processor", lambda: "another")
    found.append(key())
    monkeypatch.setattr("serving.backends.fake.version", lambda: "9.9")
    found.append(key())
    for name in ("spec.json", "model.fake.json", "golden.npz"):
        with (folder.path / name).open("ab") as file:
            file.write(b" ")
        found.append(key())
    assert len(set(found)) == len(found)


def test_a_copy_of_the_model_elsewhere_brings_what_is_known(
    folder: VersionFolder, tmp_path: Path, fresh: Callable[[], Measurements]
) -> None:
    fresh().keep(folder, BOTH, [figure()])
    copy = shutil.copytree(folder.path.parent, tmp_path / "copy")
    assert fresh().find(VersionFolder(1, copy / "1"), BOTH) == {ONE: figure()}


def test_of_a_version_that_cannot_be_read_nothing_is_known(
    folder: VersionFolder, fresh: Callable[[], Measurements]
) -> None:
    measurements = fresh()
    measurements.keep(folder, BOTH, [figure()])
    (folder.path / "spec.json").write_text("{")
    assert measurements.find(folder, BOTH) == {}
    with pytest.raises(StartupError):
        measurements.keep(folder, BOTH, [figure()])


TIMES = {"1": 1e-5, "8": 4e-5, "32": 1e-4}
GOOD = {"backend": "fake", "device": "cpu", "threads": 1, "p50_seconds": TIMES}


@pytest.mark.parametrize(
    "figures",
    [
        None,
        {},
        [7],
        [GOOD] * (MOST_FIGURES + 1),
        [GOOD | {"backend": "another"}],
        [GOOD | {"backend": ["fake"]}],
        [GOOD | {"device": 0}],
        [GOOD | {"device": "x" * 1000}],
        [GOOD | {"threads": 0}],
        [GOOD | {"threads": True}],
        [GOOD | {"threads": 1.5}],
        [GOOD | {"p50_seconds": {}}],
        [GOOD | {"p50_seconds": []}],
        [GOOD | {"p50_seconds": {**TIMES, "one": 1e-5}}],
        [GOOD | {"p50_seconds": {**TIMES, "0": 1e-5}}],
        [GOOD | {"p50_seconds": {**TIMES, "10000000": 1e-5}}],
        [GOOD | {"p50_seconds": {**TIMES, "1": -1e-5}}],
        [GOOD | {"p50_seconds": {**TIMES, "1": 0.0}}],
        [GOOD | {"p50_seconds": {**TIMES, "1": float("nan")}}],
        [GOOD | {"p50_seconds": {**TIMES, "1": float("inf")}}],
        [GOOD | {"p50_seconds": {**TIMES, "1": "fast"}}],
        [GOOD | {"p50_seconds": {**TIMES, "1": True}}],
        [GOOD, GOOD | {"threads": 2, "p50_seconds": {"8": 1e-5}}],
        [GOOD | {"p50_seconds": {"7": 1e-5}}, GOOD | {"threads": 2, "p50_seconds": {"7": 1e-5}}],
        [GOOD | {"p50_seconds": TIMES | {"7": 1e-5}}],
        [{"backend": "fake"}],
    ],
)
def test_an_entry_that_no_measurement_gives_is_ignored(
    figures: object, folder: VersionFolder, fresh: Callable[[], Measurements], caplog: pytest.LogCaptureFixture
) -> None:
    fresh().keep(folder, BOTH, [figure()])
    fields = json.loads(entry(folder).read_text())
    entry(folder).write_text(json.dumps(fields | {"figures": [GOOD]}))
    assert fresh().find(folder, BOTH) == {ONE: Measured(ONE, {1: 1e-5, 8: 4e-5, 32: 1e-4})}
    entry(folder).write_text(json.dumps(fields | {"figures": figures}))
    assert fresh().find(folder, BOTH) == {}
    assert f"ignored: {entry(folder)}: " in caplog.text


def test_a_folder_named_for_it_is_made_or_must_be_ours_alone(tmp_path: Path) -> None:
    made = checked_cache(str(tmp_path / "new" / "cache"))
    assert made.stat().st_mode & 0o777 == 0o700
    assert checked_cache(str(made)) == made
    made.chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "file").touch()
    for folder, why in (
        (made, "it belongs to somebody else, or others may read or write it"),
        (tmp_path / "link", "it is a symbolic link, and none is followed"),
        (tmp_path / "dangling", "File exists"),
        (tmp_path / "file", "File exists"),
        (tmp_path / "file" / "below", "Not a directory"),
    ):
        with pytest.raises(StartupError) as raised:
            checked_cache(str(folder))
        assert str(raised.value) == (
            f"--auto-cache {folder} cannot be used: {why}; name a folder of your own with mode 0700, one that is not there yet, "
            "or 'off'"
        )


def test_a_folder_without_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be the one that the server was started in."""
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartupError, match="--auto-cache '' cannot be used: no folder is named; name a folder"):
        checked_cache("")


def test_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert user_cache() == Path("/caches/lstm-serving/measured")
