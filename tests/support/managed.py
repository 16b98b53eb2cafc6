"""A manager with a real fake model in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from serving.lifecycle.manager import ModelManager
from serving.loading import loader
from serving.loading.request import LoadRequest
from tests.support.loading import wanted


def install(manager: ModelManager, repository: Path, text: str = "") -> None:
    """Loads the highest version of the model `fake` and lets it in, with the words of a `config.pbtxt`."""
    let_in(manager, wanted(repository, text))


def let_in(manager: ModelManager, asked: LoadRequest) -> None:
    """Loads what is asked for, and lets it in."""
    with manager.loading(asked.name) as model:
        version = str(asked.folder.number)
        assert manager.announce(model, version, asked.folder)
        loaded = loader.load(dataclasses.replace(asked, metrics=model.counts(version)))
        manager.install(model, loaded, "requested", asked.folder)


def managing(repository: Path, text: str = "") -> ModelManager:
    """A manager whose first load, of the model `fake`, is over."""
    manager = ModelManager()
    install(manager, repository, text)
    manager.started()
    return manager
