"""What the command line decides reaches whoever loads models."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.backends.base import Candidate, Measured
from serving.errors import StartupError, StoreUnusable
from serving.loading.measurements import FOLDER
from serving.loading.order import ServerDefaults
from serving.repository.folders import VersionFolder
from serving.settings import Settings
from tests.support import fake_models


def test_where_models_are_served_unless_their_configuration_says_so() -> None:
    said = {
        "backend": "torchscript",
        "device": "cuda:1",
        "threads": 3,
        "allow_tf32": True,
        "require_verified": True,
        "row_watch": 0.5,
        "optimize_for": "throughput",
        "fallback": "always",
        "trial": "off",
        "stateful": ("speech",),
    }
    assert Settings(model_repository=[Path()], **said).defaults == ServerDefaults(**said)  # type: ignore[arg-type]
    assert set(vars(ServerDefaults())) == set(said), "a decision that has no flag"


def test_they_have_the_same_defaults() -> None:
    assert Settings(model_repository=[Path()]).defaults == ServerDefaults()


@pytest.mark.parametrize(("said", "place"), [(None, "user/lstm-serving/measured"), ("off", ""), ("mine", "mine")])
def test_where_measurements_are_kept(
    said: str | None, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    folder = VersionFolder(1, fake_models.write(tmp_path / "r"))
    (tmp_path / "r" / "fake" / FOLDER).write_text("no folder")
    fake = Candidate("fake", "cpu", 1)
    found = Measured(fake, dict.fromkeys((1, 8, 32), 1e-5))
    Settings(model_repository=[], auto_cache=said).measurements().keep(folder, [fake], [found])
    found = [path.parent for path in tmp_path.rglob("*.json") if len(path.stem) == 40]
    assert found == ([tmp_path / place] if place else [])


def test_what_sequences_outlive_the_server_on(tmp_path: Path) -> None:
    assert Settings(model_repository=[]).disk() is None
    disk = Settings(model_repository=[], sequence_store=f"file:{tmp_path / 's'}", sequence_durability="disk").disk()
    assert disk
    disk.close()
    assert (tmp_path / "s" / "sequences.sqlite").is_file()
    with pytest.raises(StoreUnusable, match="use memory or file:PATH"):
        Settings(model_repository=[], sequence_store="redis:1").disk()


def test_a_folder_for_measurements_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(StartupError, match=r"--auto-cache .*/link cannot be used: it is a symbolic link"):
        Settings(model_repository=[], auto_cache=str(tmp_path / "link")).measurements()
