"""Which shadow runs as a configuration asks, and that one which cannot run harms nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.lifecycle import load_failures
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.shadows import Shadows
from serving.lifecycle.versions import ModelEntry
from serving.loading.order import ServerDefaults
from serving.repository import model_config
from serving.repository.folders import Repository
from tests.support import fake_models
from tests.support.fake_models import parameters
from tests.support.loading import loaded, serve


@pytest.fixture
def manager() -> Iterator[ModelManager]:
    made = ModelManager(give_back=lambda: None)
    made.started()
    yield made
    assert made.close(10)


def entry_of(manager: ModelManager) -> ModelEntry:
    entry = manager.known("fake")
    assert entry
    return entry


def start(manager: ModelManager, root: Path, text: str) -> None:
    """As when the configuration is adopted, after the versions that it serves have been let in."""
    repository, entry, config = Repository(root), entry_of(manager), model_config.parse(text, "fake")
    folders = {folder.number: folder for folder in repository.versions("fake")}
    entry.adopt(config.routes)
    Shadows(manager, ServerDefaults(backend="fake")).start(entry, repository, folders, config)


def running(manager: ModelManager) -> list[tuple[str, str]]:
    """The version that is followed, and by what."""
    return [(version, shadow.target) for _, version, shadow in manager.shadows()]


SECOND = parameters({"shadow": "2", "shadow_share": "0.5"})
ITSELF = parameters({"shadow": "fake@cpu", "shadow_share": "1"})


def test_a_shadow_has_one_instance_whatever_it_follows_has(tmp_path: Path, manager: ModelManager) -> None:
    fake_models.write(tmp_path, version=2)
    serve(manager, loaded(tmp_path, 1))
    start(manager, tmp_path, f"{SECOND} instance_group {{ count: 3 }}")
    ((name, version, shadow),) = manager.shadows()
    assert (name, version, shadow.target, shadow.model.instances) == ("fake", "1", "2/fake", 1)
    assert not shadow.model.metrics.in_flight
    assert not manager.failures.snapshot()


def test_another_one_takes_its_place(tmp_path: Path, manager: ModelManager) -> None:
    fake_models.write(tmp_path, version=2)
    serve(manager, loaded(tmp_path, 1))
    start(manager, tmp_path, SECOND)
    start(manager, tmp_path, ITSELF)
    assert running(manager) == [("1", "1/fake")]


@pytest.mark.parametrize(
    "end",
    [
        lambda manager, root: start(manager, root, ""),
        lambda manager, root: Shadows(manager, ServerDefaults()).end(entry_of(manager)),
    ],
    ids=["none is asked for", "the model is unloaded"],
)
def test_a_shadow_ends(end: Callable[[ModelManager, Path], None], tmp_path: Path, manager: ModelManager) -> None:
    serve(manager, loaded(tmp_path, 1))
    start(manager, tmp_path, ITSELF)
    end(manager, tmp_path)
    assert running(manager) == []


def test_nothing_is_loaded_where_nobody_answers(tmp_path: Path, manager: ModelManager) -> None:
    fake_models.write(tmp_path, version=2)
    serve(manager, loaded(tmp_path, 1))
    with manager.loading("fake") as entry:
        manager.remove(entry, "1", unloaded=True)
    start(manager, tmp_path, SECOND)
    assert entry_of(manager).shadow is None
    assert not manager.failures.snapshot()


def other_signature(root: Path) -> None:
    fake_models.write(root, version=2, model_spec=fake_models.spec(per_step=True))


def damaged(root: Path) -> None:
    (fake_models.write(root, version=2) / "golden.npz").write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "why"),
    [(other_signature, "it has the outputs y FP32 [-1, -1, 2], and"), (damaged, "golden.npz is not a usable set")],
    ids=["it does not fit", "it cannot be loaded"],
)
def test_a_shadow_that_cannot_run_harms_nobody(
    write: Callable[[Path], None], why: str, tmp_path: Path, manager: ModelManager
) -> None:
    write(tmp_path)
    serve(manager, loaded(tmp_path, 1))
    start(manager, tmp_path, SECOND)
    assert running(manager) == []
    (status,) = manager.entries()
    assert (status.state, status.alive) == ("READY", True)
    assert status.reason.startswith("its shadow 2 does not run: ")
    assert why in status.reason
    assert manager.failures.snapshot() == {("fake", "2", load_failures.SHADOW): 1}
