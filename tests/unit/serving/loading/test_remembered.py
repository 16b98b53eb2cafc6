"""What was seen to load is found again, and nothing else is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from serving.loading import remembered
from serving.loading.remembered import FOLDER, MOST_ENTRIES, Remembered, cache_folder, name_of
from serving.loading.request import Tried

KEY = {"files": "ab", "threads": 1}
FOUND = Tried("extended", "at 'all' it ended with signal 11")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lstm-serving" / "trials"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


def unwritable(model: Path) -> None:
    """Whoever runs the tests, root too: where the folder should be there is a file."""
    (model / FOLDER).write_text("no folder")


def test_it_is_found_by_its_key_and_by_no_other(model: Path) -> None:
    Remembered().keep(model, KEY, FOUND)
    assert Remembered().find(model, KEY) == FOUND
    assert Remembered().find(model, KEY | {"threads": 2}) is None
    assert [path.parent for path in model.rglob("*.json")] == [model / FOLDER]
    assert Remembered().find(model.parent, KEY) is None


def test_what_cannot_be_kept_with_the_model_is_kept_in_the_users_cache(model: Path, cache: Path) -> None:
    unwritable(model)
    Remembered().keep(model, KEY, FOUND)
    assert cache_folder() == cache
    assert (cache / name_of(KEY)).is_file()
    assert cache.stat().st_mode & 0o777 == 0o700
    assert Remembered().find(model, KEY) == FOUND


def test_without_a_name_for_it_the_cache_is_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", said)
        monkeypatch.setenv("HOME", "/home/of")
        assert cache_folder() == Path("/home/of/.cache/lstm-serving/trials")


def test_a_cache_that_others_may_write_is_not_believed_nor_written(
    model: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unwritable(model)
    Remembered().keep(model, KEY, FOUND)
    cache.chmod(0o770)
    assert Remembered().find(model, KEY) is None
    kept = Remembered()
    for _ in range(2):
        kept.keep(model, KEY | {"threads": 7}, FOUND)
    assert len(list(cache.iterdir())) == 1
    assert len([one for one in caplog.messages if "every start tries it again" in one]) == 1  # said once
    assert f"{cache}: it belongs to somebody else, or others may read or write it" in caplog.text


def test_no_link_is_followed(model: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (model / FOLDER).symlink_to(elsewhere)
    Remembered().keep(model, KEY, FOUND)
    assert list(elsewhere.iterdir()) == []
    (model / FOLDER).unlink()
    Remembered().keep(model, KEY, FOUND)
    entry = model / FOLDER / name_of(KEY)
    entry.rename(tmp_path / "entry")
    entry.symlink_to(tmp_path / "entry")
    (cache_folder() / name_of(KEY)).unlink()
    assert Remembered().find(model, KEY) is None


def _with(**changes: object) -> str:
    return json.dumps({"format": 1, "key": KEY, "level": "", "remark": ""} | changes)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 10000,
        "\xff",
        _with(format=2),
        _with(key={"files": "other"}),
        _with(level=7),
        _with(level="a\nb"),
        _with(remark="\x1b[2J"),
        _with(remark="x" * 3000),
        json.dumps({"format": 1, "key": KEY, "level": ""}),
        _with() + " " * remembered.MOST_BYTES,
    ],
)
def test_content_that_does_not_fit_is_ignored(content: str, model: Path) -> None:
    kept = Remembered()
    kept.keep(model, KEY, Tried())
    assert kept.find(model, KEY) == Tried()
    (model / FOLDER / name_of(KEY)).write_text(content, encoding="latin-1")
    assert kept.find(model, KEY) is None


def test_a_pipe_is_not_waited_at(model: Path) -> None:
    (model / FOLDER).mkdir()
    os.mkfifo(model / FOLDER / name_of(KEY))
    assert Remembered().find(model, KEY) is None


def test_there_are_never_more_than_so_many(model: Path) -> None:
    kept = Remembered()
    keys = [KEY | {"threads": number} for number in range(MOST_ENTRIES + 3)]
    for age, key in enumerate(keys):
        kept.keep(model, key, Tried())
        os.utime(model / FOLDER / name_of(key), (age, age))
    names = {path.name for path in (model / FOLDER).iterdir()}
    assert len(names) == MOST_ENTRIES
    assert {name_of(key) for key in keys[3:]} == names  # the oldest went


def test_what_could_not_be_written_whole_leaves_nothing_behind(model: Path, cache: Path) -> None:
    """On a full disk every start would leave another file. Here a folder stands where the entry should be."""
    for place in (model / FOLDER, cache):
        place.mkdir(parents=True, mode=0o700)
        (place / name_of(KEY)).mkdir()
    Remembered().keep(model, KEY, FOUND)
    for place in (model / FOLDER, cache):
        assert [entry.name for entry in place.iterdir()] == [name_of(KEY)]
