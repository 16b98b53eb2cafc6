"""Which models are loaded, and when: what depends on the order of events that no client can see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import NotInRepository, NotReady
from serving.lifecycle.control import Load, RepositoryControl
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.versions import ModelEntry
from serving.loading import loader
from serving.loading.order import ServerDefaults
from serving.loading.request import Loaded, LoadRequest
from serving.repository.repositories import Repositories
from tests.support import fake_models


@pytest.fixture
def manager() -> Iterator[ModelManager]:
    made = ModelManager()
    yield made
    assert made.close(10)


def control(manager: ModelManager, folder: Path, mode: str, load: Load = loader.load) -> RepositoryControl:
    return RepositoryControl(manager, Repositories([folder]), ServerDefaults(backend="fake"), mode=mode, load=load)


def test_what_appears_while_the_server_starts_is_a_change(tmp_path: Path, manager: ModelManager) -> None:
    """Loading may take minutes, and the first look for changes comes after it."""
    fake_models.write(tmp_path)
    second = threading.Event()

    def load(request: LoadRequest) -> Loaded:
        made = loader.load(request)
        if request.folder.number == 1:
            fake_models.write(tmp_path, version=2)
        else:
            second.set()
        return made

    following = control(manager, tmp_path, "poll", load)
    following.start()
    thread = threading.Thread(target=following.poll, args=(0.01,))
    thread.start()
    assert second.wait(20)
    manager.closing.set()
    thread.join(10)


def test_a_label_leads_to_a_version_that_can_answer_all_the_time(
    tmp_path: Path, manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks at the very moment at which the version leaves that the label was of is answered by the new one."""
    config = (
        'parameters { key: "version_labels" value { string_value: "canary=%d" } } '
        "version_policy { specific { versions: [%d] } }"
    )
    for version in (1, 2):
        fake_models.write(tmp_path, version=version)
    (tmp_path / "fake" / "config.pbtxt").write_text(config % (1, 1))
    controlled = control(manager, tmp_path, "explicit")
    controlled.load("fake")
    answering = []

    def remove(known: ModelEntry, version: str, *, unloaded: bool, original: Any = manager.remove) -> None:
        original(known, version, unloaded=unloaded)
        lease = manager.acquire("fake", "canary")
        answering.append(lease.model.version)
        lease.release()

    monkeypatch.setattr(manager, "remove", remove)
    (tmp_path / "fake" / "config.pbtxt").write_text(config % (2, 2))
    controlled.load("fake")
    assert answering == ["2"]


@pytest.mark.parametrize(
    ("named", "loaded"), [(("*",), {"fake"}), (("*", "nosuch"), {"fake", "nosuch"}), (("nosuch",), {"nosuch"})]
)
def test_what_is_to_be_loaded_at_start_and_is_not_there_is_a_failure(
    named: tuple[str, ...], loaded: set[str], tmp_path: Path, manager: ModelManager
) -> None:
    fake_models.write(tmp_path)
    control(manager, tmp_path, "explicit").start(named)
    assert {entry.name for entry in manager.entries()} == loaded
    assert manager.ready() == ("nosuch" not in loaded)


def test_at_the_start_more_is_said_of_what_is_missing_than_to_clients(tmp_path: Path, manager: ModelManager) -> None:
    fake_models.write(tmp_path)
    controlled = control(manager, tmp_path, "explicit")
    controlled.start(["fkae"])
    (entry,) = manager.entries()
    in_tritons_words = "failed to load 'fkae', failed to poll from model repository"
    assert entry.reason == f"{in_tritons_words}: there is no folder 'fkae' in {tmp_path}; did you mean 'fake'?"
    with pytest.raises(NotInRepository) as refused:
        controlled.load("fkae")
    assert str(refused.value) == in_tritons_words


def test_a_load_that_the_end_of_the_server_overtakes_is_no_failure_of_the_model(
    tmp_path: Path, manager: ModelManager
) -> None:
    fake_models.write(tmp_path)

    def load(request: LoadRequest) -> Loaded:
        made = loader.load(request)
        manager.closing.set()
        return made

    with pytest.raises(NotReady, match="Server exiting"):
        control(manager, tmp_path, "explicit", load).load("fake")
    assert not manager.failures.snapshot()
