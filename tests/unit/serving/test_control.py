"""Which models are loaded, and when: what depends on the order of events that no client can see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import loader
from serving.control import RepositoryControl
from serving.errors import NotReady
from serving.loader import Wanted
from serving.manager import ModelManager
from serving.model import Model
from serving.placement import Placement
from serving.repository import Repository
from tests import fake_models


@pytest.fixture
def manager() -> Iterator[ModelManager]:
    made = ModelManager()
    yield made
    assert made.close(10)


def control(manager: ModelManager, folder: Path, mode: str) -> RepositoryControl:
    return RepositoryControl(manager, Repository(folder), Placement(backend="fake"), mode=mode)


def test_what_appears_while_the_server_starts_is_a_change(
    tmp_path: Path, manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading may take minutes, and the first look for changes comes after it."""
    fake_models.write(tmp_path)
    second = threading.Event()

    def load(wanted: Wanted, original: Any = loader.load) -> Model:
        made: Model = original(wanted)
        if wanted.folder.number == 1:
            fake_models.write(tmp_path, version=2)
        else:
            second.set()
        return made

    monkeypatch.setattr(loader, "load", load)
    following = control(manager, tmp_path, "poll")
    following.start()
    thread = threading.Thread(target=following.poll, args=(0.01,))
    thread.start()
    assert second.wait(20)
    manager.closing.set()
    thread.join(10)


def test_a_load_that_the_end_of_the_server_overtakes_is_no_failure_of_the_model(
    tmp_path: Path, manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_models.write(tmp_path)

    def load(wanted: Wanted, original: Any = loader.load) -> Model:
        made: Model = original(wanted)
        manager.closing.set()
        return made

    monkeypatch.setattr(loader, "load", load)
    with pytest.raises(NotReady, match="Server exiting"):
        control(manager, tmp_path, "explicit").load("fake")
    assert not manager.load_failures
