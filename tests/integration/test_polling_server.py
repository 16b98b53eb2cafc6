"""A server that follows its repository: what appears is served, what goes is unloaded, what is being written is left alone."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.launch import LaunchedServer
from tests.support import fake_models, summing
from tests.support.closed_loop import ClosedLoop
from tests.support.fake_models import published
from tests.support.running import POLL, logged, metric, until
from tests.support.wire import RawClient, refusal

READY = ("READY", "")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    published(folder := tmp_path / "repository", 1)
    return folder


@pytest.fixture
def server(repository: Path) -> Iterator[LaunchedServer]:
    with LaunchedServer(repository, *POLL) as running:
        yield running


@pytest.fixture
def looked(server: LaunchedServer, repository: Path) -> Callable[[], None]:
    """Returns when everything that was there at the call has been seen twice, and acted upon.

    By a model that appears, and that is the last by name: when it is served, so is all else.
    """
    numbers = itertools.count()

    def look() -> None:
        name = f"zz{next(numbers)}"
        fake_models.write(repository.parent / "seen", name)
        (repository.parent / "seen" / name).rename(repository / name)
        with RawClient(server.address) as client:
            until(lambda: client.index().get(f"{name}/1") == READY)

    return look


def test_a_new_version_and_a_new_model_are_served(server: LaunchedServer, repository: Path) -> None:
    with RawClient(server.address) as client, ClosedLoop(server.address) as loop:
        loop.more()
        published(repository, 2)
        until(lambda: client.index() == {"fake/2": READY})
        loop.more()
        assert client.version("fake") == "2"
        fake_models.write(repository.parent / "made", "new")
        (repository.parent / "made" / "new").rename(repository / "new")
        until(lambda: client.index() == {"fake/2": READY, "new/1": READY})
        assert client.infer("new").tolist() == [6, 6]


def test_a_version_that_takes_long_to_load_takes_nothing_away(server: LaunchedServer, repository: Path) -> None:
    """All replicas see it at the same time: none of them may be without traffic while the old version can answer."""
    slow = fake_models.write(repository.parent / "made", version=2, delay_seconds=0.1)
    with RawClient(server.address) as client:
        slow.rename(repository / "fake" / "2")
        until(lambda: client.index().get("fake/2", ("",))[0] == "LOADING")
        ready = []
        while client.index()["fake/2"][0] == "LOADING":
            ready.append(client.call("ServerReady").ready)
        assert all(ready)
        assert len(ready) > 1, "it was loaded too quickly to tell"
        assert client.version("fake") == "2"


def test_a_model_that_is_removed_is_unloaded_and_taken_when_it_is_back(
    server: LaunchedServer, repository: Path
) -> None:
    with RawClient(server.address) as client:
        away = repository.parent / "away"
        (repository / "fake").rename(away)
        until(lambda: client.index() == {"fake/1": ("UNAVAILABLE", "unloaded")})
        assert "has no available versions" in refusal(client.infer)[1]
        assert client.call("ServerReady").ready
        away.rename(repository / "fake")
        until(lambda: client.index() == {"fake/1": READY})
        assert client.infer().tolist() == [6, 6]


def test_a_changed_configuration_swaps_the_backend(server: LaunchedServer, repository: Path) -> None:
    with RawClient(server.address) as client, ClosedLoop(server.address) as loop:
        summing.write(repository / "fake" / "1")
        (repository / "fake" / "config.pbtxt").write_text('backend: "onnxruntime"')
        until(lambda: client.call("ModelConfig", name="fake").config.backend == "onnxruntime")
        loop.more()
        swap = {"from": "fake", "to": "onnx_runtime", "reason": "changed"}
        assert metric(server, "backend_swaps_total", model="fake", version="1", **swap) == 1


def test_a_version_that_is_written_in_pieces_is_served_when_it_is_whole(
    server: LaunchedServer, repository: Path, looked: Callable[[], None]
) -> None:
    """Slower than the server looks: what is half there cannot be loaded, and the old version answers."""
    made = fake_models.write(repository.parent / "made", version=2)
    target = repository / "fake" / "2"
    with RawClient(server.address) as client, ClosedLoop(server.address, clients=2):
        target.mkdir()
        for name in ("model.fake.json", "golden.npz", "spec.json"):
            content = (made / name).read_bytes()
            for part in (content[: len(content) // 2], content):
                looked()
                assert client.version("fake") == "1"
                assert client.call("ServerReady").ready
                (target / name).write_bytes(part)
        until(lambda: client.index().get("fake/2") == READY)
        until(lambda: "fake/1" not in client.index())
        assert client.version("fake") == "2"


def test_a_folder_with_a_dot_is_not_there_until_it_is_renamed(
    server: LaunchedServer, repository: Path, looked: Callable[[], None]
) -> None:
    hidden = fake_models.write(repository / ".new", "fake", version=2).rename(repository / "fake" / ".2.part")
    (hidden / "spec.json").write_text("{")
    looked()
    with RawClient(server.address) as client:
        assert {name for name in client.index() if not name.startswith("zz")} == {"fake/1"}
        shutil.rmtree(hidden)
        published(repository, 2).rename(hidden)
        looked()
        hidden.rename(repository / "fake" / "2")
        until(lambda: client.index().get("fake/2") == READY)
    assert server.stop() == 0
    assert not logged(server, "not loaded")
    assert [
        entry["version"] for entry in server.log() if entry.get("model") == "fake" and entry["message"] == "loaded"
    ] == ["1", "2"]


def test_a_link_that_is_turned_to_another_folder_is_a_change(tmp_path: Path) -> None:
    """The way in which a release is often switched: one link, turned at once."""
    versions = tmp_path / "versions"
    fake_models.write(versions, "a", config="max_batch_size: 4")
    fake_models.write(versions, "b", config="max_batch_size: 8")
    link = tmp_path / "repository" / "fake" / "1"
    link.parent.mkdir(parents=True)
    link.symlink_to(versions / "a" / "1")
    with LaunchedServer(tmp_path / "repository", *POLL) as server, RawClient(server.address) as client:
        (tmp_path / "turned").symlink_to(versions / "b" / "1")
        (tmp_path / "turned").rename(link)
        until(lambda: len([entry for entry in server.log() if entry["message"] == "loaded"]) == 2)
        assert client.infer().tolist() == [6, 6]


def test_a_repository_that_cannot_be_read_for_a_while_unloads_nothing(server: LaunchedServer, repository: Path) -> None:
    """A disk that was unmounted, or a share that has gone: what is in memory needs none."""
    away = repository.parent / "away"
    with RawClient(server.address) as client, ClosedLoop(server.address, clients=2) as loop:
        repository.rename(away)
        until(lambda: logged(server, "the model repository cannot be read") >= 3)
        loop.more()
        assert client.index() == {"fake/1": READY}
        assert client.call("ServerReady").ready
        published(away, 2)
        away.rename(repository)
        until(lambda: client.index() == {"fake/2": READY})
        loop.more()
