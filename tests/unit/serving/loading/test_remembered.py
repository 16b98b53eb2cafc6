"""What was seen to load is found again, and nothing else is believed. Where it is kept, and how: test_kept.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.loading.kept import Kept, name_of
from serving.loading.remembered import FOLDER, Remembered
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


def test_it_is_found_by_its_key_and_by_no_other(model: Path) -> None:
    Remembered().keep(model, KEY, FOUND)
    assert Remembered().find(model, KEY) == FOUND
    assert Remembered().find(model, KEY | {"threads": 2}) is None
    assert [path.parent for path in model.rglob("*.json")] == [model / FOLDER]


def test_what_cannot_be_kept_with_the_model_is_kept_in_the_users_cache(model: Path, cache: Path) -> None:
    (model / FOLDER).write_text("no folder")
    Remembered().keep(model, KEY, FOUND)
    assert (cache / name_of(KEY)).is_file()
    assert Remembered().find(model, KEY) == FOUND


def test_where_nothing_can_be_kept_that_is_said_once(
    model: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (model / FOLDER).write_text("no folder")
    cache.mkdir(parents=True, mode=0o755)
    kept = Remembered()
    for _ in range(2):
        kept.keep(model, KEY, FOUND)
    assert len([one for one in caplog.messages if "every start tries it again" in one]) == 1
    assert f"{cache}: it belongs to somebody else, or others may read or write it" in caplog.text


@pytest.mark.parametrize(
    "changes", [{"level": 7}, {"level": "a\nb"}, {"remark": "\x1b[2J"}, {"remark": "x" * 3000}, {"remark": None}]
)
def test_an_entry_that_does_not_fit_is_ignored(
    changes: dict[str, object], model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(FOLDER, lambda: None)
    assert kept.keep(model, KEY, {"level": "", "remark": ""}) == []
    assert Remembered().find(model, KEY) == Tried()
    assert kept.keep(model, KEY, {"level": "", "remark": ""} | changes) == []
    assert Remembered().find(model, KEY) is None
    assert f"ignored: {model / FOLDER / name_of(KEY)}: " in caplog.text
