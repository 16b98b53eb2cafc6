"""Entries are found by their key, beside the model or in a folder of ours alone, and nothing else is believed."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.loading import kept
from serving.loading.kept import MOST_BYTES, MOST_ENTRIES, MOST_IN_CACHE, Kept, name_of, user_folder

FOLDER = ".found"
KEY = {"files": "ab", "threads": 1}
FOUND = {"seconds": 0.5}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "of" / "ours"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


@pytest.fixture
def entries(cache: Path) -> Kept:
    return Kept(FOLDER, lambda: cache)


def seconds(fields: Mapping[str, Any]) -> float:
    return fields["seconds"] + 0.0


def find(entries: Kept, model: Path, key: kept.Key = KEY) -> Any:
    return entries.find(model, key, seconds)


def unwritable(model: Path) -> None:
    """Whoever runs the tests, root too: where the folder should be there is a file."""
    (model / FOLDER).write_text("no folder")


def test_it_is_found_by_its_key_and_by_no_other(entries: Kept, model: Path) -> None:
    assert find(entries, model) is None
    assert entries.keep(model, KEY, FOUND) == []
    assert find(entries, model) == 0.5
    assert find(entries, model, KEY | {"threads": 2}) is None
    assert [path.parent for path in model.rglob("*.json")] == [model / FOLDER]
    assert find(entries, model.parent) is None


def test_what_cannot_be_kept_with_the_model_is_kept_in_a_folder_of_ours(
    entries: Kept, model: Path, cache: Path
) -> None:
    unwritable(model)
    assert entries.keep(model, KEY, FOUND) == []
    assert (cache / name_of(KEY)).is_file()
    assert cache.stat().st_mode & 0o777 == 0o700
    assert find(entries, model) == 0.5


def test_it_is_kept_nowhere_where_there_is_no_other_place(model: Path) -> None:
    unwritable(model)
    (reason,) = Kept(FOLDER, lambda: None).keep(model, KEY, FOUND)
    assert reason == f"{model / FOLDER}: File exists"


def test_the_users_folder_is_the_usual_one_unless_it_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", said)
        monkeypatch.setenv("HOME", "/home/of")
        assert user_folder("trials") == Path("/home/of/.cache/lstm-serving/trials")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert user_folder("measured") == Path("/caches/lstm-serving/measured")


def test_a_user_without_a_home_has_no_other_place(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "expanduser", nobody)
    entries = Kept(FOLDER, functools.partial(user_folder, "found"))
    assert find(entries, model) is None
    assert entries.keep(model, KEY, FOUND) == []


def test_a_folder_that_others_may_read_is_not_believed_nor_written(
    entries: Kept, model: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unwritable(model)
    entries.keep(model, KEY, FOUND)
    cache.chmod(0o750)
    assert find(entries, model) is None
    why = "it belongs to somebody else, or others may read or write it"
    assert f"ignored: {cache / name_of(KEY)}: {why}" in caplog.text
    assert f"{cache}: {why}" in entries.keep(model, KEY | {"threads": 7}, FOUND)
    assert len(list(cache.iterdir())) == 1


def test_a_folder_of_somebody_else_is_not_believed_nor_written(
    entries: Kept, model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable(model)
    entries.keep(model, KEY, FOUND)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert find(entries, model) is None
    assert any("belongs to somebody else" in reason for reason in entries.keep(model, KEY, FOUND))


@pytest.mark.parametrize("there", [True, False], ids=["to a folder", "to nothing"])
def test_no_link_to_a_folder_is_followed(there: bool, entries: Kept, model: Path, cache: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    if there:
        elsewhere.mkdir(0o700)
    cache.parent.mkdir(parents=True)
    for place in (model / FOLDER, cache):
        place.symlink_to(elsewhere)
    assert len(entries.keep(model, KEY, FOUND)) == 2
    assert list(elsewhere.iterdir() if there else []) == []
    assert find(entries, model) is None


def test_no_link_to_an_entry_is_followed(entries: Kept, model: Path, tmp_path: Path) -> None:
    entries.keep(model, KEY, FOUND)
    entry = model / FOLDER / name_of(KEY)
    entry.rename(tmp_path / "entry")
    entry.symlink_to(tmp_path / "entry")
    assert find(entries, model) is None


def with_(**changes: object) -> str:
    return json.dumps({"format": 1, "key": KEY, "seconds": 1.0} | changes)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "7",
        "[" * 10000,
        "\xff",
        with_(format=2),
        with_(key={"files": "other"}),
        with_(key=None),
        with_(seconds="long"),
        json.dumps({"format": 1, "key": KEY}),
        with_() + " " * MOST_BYTES,
    ],
)
def test_content_that_does_not_fit_is_ignored_and_the_log_says_so(
    content: str, entries: Kept, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries.keep(model, KEY, FOUND)
    (model / FOLDER / name_of(KEY)).write_text(content, encoding="latin-1")
    assert find(entries, model) is None
    (said,) = caplog.messages
    assert said.startswith(f"ignored: {model / FOLDER / name_of(KEY)}: ")


def test_a_pipe_is_not_waited_at(entries: Kept, model: Path) -> None:
    (model / FOLDER).mkdir()
    os.mkfifo(model / FOLDER / name_of(KEY))
    assert find(entries, model) is None


def test_there_are_never_more_than_so_many(entries: Kept, model: Path) -> None:
    keys = [KEY | {"threads": number} for number in range(MOST_ENTRIES + 3)]
    for age, key in enumerate(keys):
        entries.keep(model, key, FOUND)
        os.utime(model / FOLDER / name_of(key), (age, age))
    names = {path.name for path in (model / FOLDER).iterdir()}
    assert len(names) == MOST_ENTRIES
    assert {name_of(key) for key in keys[3:]} == names  # the oldest went


@pytest.mark.parametrize("most", [MOST_ENTRIES, MOST_IN_CACHE], ids=["beside the model", "in a folder of the user"])
def test_what_is_not_ours_neither_counts_nor_goes(most: int, entries: Kept, model: Path, cache: Path) -> None:
    """A folder that somebody names may hold their own files, older than ours."""
    place = model / FOLDER
    if most == MOST_IN_CACHE:
        unwritable(model)
        place = cache
    place.mkdir(parents=True, mode=0o700)
    theirs = [f"letter {number}.txt" for number in range(most + 5)] + [f"{'0' * 39}.json", f"{'0' * 40}.json.bak"]
    for name in theirs:
        (place / name).touch()
        os.utime(place / name, (0, 0))
    (place / f"{'1' * 40}.json").mkdir()
    (place / f"{'2' * 40}.json").symlink_to("letter 0.txt")
    for number in range(3):
        assert entries.keep(model, KEY | {"threads": number}, FOUND) == []
    names = {path.name for path in place.iterdir()}
    assert names >= {*theirs, f"{'1' * 40}.json", f"{'2' * 40}.json"}
    assert names >= {name_of(KEY | {"threads": number}) for number in range(3)}


def test_what_was_left_of_one_being_written_goes(entries: Kept, model: Path) -> None:
    (model / FOLDER).mkdir()
    for number in range(MOST_ENTRIES):
        left = model / FOLDER / f".{'0' * 40}.json.{number:x}"
        left.touch()
        os.utime(left, (number, number))
    entries.keep(model, KEY, FOUND)
    names = {path.name for path in (model / FOLDER).iterdir()}
    assert len(names) == MOST_ENTRIES
    assert f".{'0' * 40}.json.0" not in names


@pytest.mark.parametrize("what", ["pipe", "hard link"])
def test_whatever_lies_where_it_is_written_is_not_touched(
    what: str, entries: Kept, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at the entry's name nor, should anybody guess it, at the one that it has while it is written."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "ab")
    (tmp_path / "theirs").write_text("a letter")
    (model / FOLDER).mkdir()

    def put(name: str) -> Path:
        if what == "pipe":
            os.mkfifo(model / FOLDER / name)
        else:
            os.link(tmp_path / "theirs", model / FOLDER / name)
        return model / FOLDER / name

    put(name_of(KEY))
    assert entries.keep(model, KEY, FOUND) == []
    assert find(entries, model) == 0.5
    guessed = put(f".{name_of(KEY)}.ab")
    assert entries.keep(model, KEY, {"seconds": 7.0}) == []
    assert find(entries, model) == 0.5, "the model's folder did not take it, and goes first"
    assert guessed.exists()
    assert (tmp_path / "theirs").read_text() == "a letter"


def test_a_folder_at_its_name_is_ignored_and_costs_no_descriptor(entries: Kept, model: Path) -> None:
    (model / FOLDER / name_of(KEY)).mkdir(parents=True)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        assert find(entries, model) is None
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_each_place_that_has_one_is_found(entries: Kept, model: Path, cache: Path) -> None:
    unwritable(model)
    entries.keep(model, KEY, FOUND)
    (model / FOLDER).unlink()
    assert list(entries.each(model, KEY, seconds)) == [0.5]
    entries.keep(model, KEY, {"seconds": 7.0})
    assert list(entries.each(model, KEY, seconds)) == [7.0, 0.5]
    (model / FOLDER / name_of(KEY)).write_text("{")
    assert list(entries.each(model, KEY, seconds)) == [0.5]


def test_what_could_not_be_written_whole_leaves_nothing_behind(entries: Kept, model: Path, cache: Path) -> None:
    """On a full disk every start would leave another file. Here a folder stands where the entry should be."""
    for place in (model / FOLDER, cache):
        place.mkdir(parents=True, mode=0o700)
        (place / name_of(KEY)).mkdir()
    assert len(entries.keep(model, KEY, FOUND)) == 2
    for place in (model / FOLDER, cache):
        assert [entry.name for entry in place.iterdir()] == [name_of(KEY)]


def test_what_would_not_be_read_again_is_not_written(entries: Kept, model: Path) -> None:
    (reason,) = entries.keep(model, KEY, {"seconds": "x" * MOST_BYTES})
    assert "more than 16384" in reason
    assert not (model / FOLDER).exists()
