"""What is in memory, as whoever looks is told: leases, the sentences where there is none, and what stands by a version."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from serving.batching.model import Lease, Model
from serving.errors import InvalidRequest, NotReady, RepositoryError, ServingError, UnknownModel, UnknownVersion
from serving.lifecycle.failover import Failover
from serving.lifecycle.manager import ModelManager
from serving.loading.request import Loaded
from serving.repository import model_config
from serving.repository.routes import Routes
from serving.sequences.live import Begun, Sequences
from serving.sequences.step import Key, Step
from serving.telemetry.timeline import now_ns
from tests.support.loading import loaded, serve


@pytest.fixture
def manager() -> Iterator[ModelManager]:
    made = ModelManager(give_back=lambda: None)
    made.started()
    yield made
    assert made.close(10)


def fails(manager: ModelManager, version: str, why: str, name: str = "fake") -> None:
    with manager.loading(name) as entry:
        manager.refuse(entry, version, RepositoryError(why))


def test_while_models_are_loaded_at_start_unknown_is_not_known_yet() -> None:
    """Clients retry what is UNAVAILABLE, and nothing that is called unknown."""
    manager = ModelManager()
    with pytest.raises(NotReady, match=r"Server not ready: models are being loaded\. Request for unknown model: 'm'"):
        manager.acquire("m")
    manager.started()
    with pytest.raises(UnknownModel):
        manager.acquire("m")


@pytest.mark.parametrize(
    ("name", "version", "answers"),
    [
        ("fake", "", "2"),
        ("fake", "1", "1"),
        ("fake", "01", "1"),
        ("fake", "old", "1"),  # a label
    ],
)
def test_who_is_leased(name: str, version: str, answers: str, tmp_path: Path, manager: ModelManager) -> None:
    for number in (1, 2):
        serve(manager, loaded(tmp_path, number))
    fails(manager, "3", "it is damaged")
    entry = manager.known("fake")
    assert entry
    entry.adopt(Routes(labels={"old": 1}))
    with manager.acquire(name, version) as leased:
        assert leased.version == answers
    assert manager.version_of(name, version) == ("" if not version else answers)
    if version != "old":
        assert manager.version_of("nosuch", version) == version.lstrip("0")


@pytest.mark.parametrize(
    ("name", "version", "error", "message"),
    [
        ("nosuch", "", UnknownModel, "Request for unknown model: 'nosuch' is not found"),
        ("nosuch", "1", UnknownModel, "Request for unknown model: 'nosuch' is not found"),
        (
            "fake",
            "9",
            UnknownVersion,
            "Request for unknown model: 'fake' version 9 is not found; its versions are 1, 3",
        ),
        (
            "fake",
            "3",
            NotReady,
            "Request for unknown model: 'fake' version 3 is not at ready state (UNAVAILABLE: it is damaged)",
        ),
        ("fake", "canary", InvalidRequest, "failed to get model version from specified version string 'canary', "),
        (
            "broken",
            "",
            UnknownVersion,
            "Request for unknown model: 'broken' has no available versions (UNAVAILABLE: it cannot be listed)",
        ),
        (
            "broken",
            "1",
            UnknownVersion,
            "Request for unknown model: 'broken' version 1 is not found (UNAVAILABLE: it cannot be listed)",
        ),
    ],
)
def test_what_is_said_where_there_is_no_lease(
    name: str, version: str, error: type[ServingError], message: str, tmp_path: Path, manager: ModelManager
) -> None:
    serve(manager, loaded(tmp_path))
    fails(manager, "3", "it is damaged")
    fails(manager, "", "it cannot be listed", name="broken")
    with pytest.raises(error) as raised:
        manager.acquire(name, version)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("version", "answers"),
    [("", ["1", "2", "1", "2"]), ("1", ["1"] * 4), ("new", ["2"] * 4)],
    ids=["dealt", "1", "new"],
)
def test_many_leases_at_once_are_those_that_each_would_have_got(
    version: str, answers: list[str], tmp_path: Path, manager: ModelManager
) -> None:
    for number in (1, 2):
        serve(manager, loaded(tmp_path, number))
    entry = manager.known("fake")
    assert entry
    entry.adopt(Routes(labels={"stable": 1, "canary": 2, "new": 2}, canary_share=0.5))
    leases = manager.acquire_all("fake", version, 4)
    assert [lease.model.version for lease in leases] == answers
    Lease.release_all(leases)


def test_it_is_ready_when_the_first_load_is_over_and_what_is_to_serve_can_answer(tmp_path: Path) -> None:
    manager = ModelManager(give_back=lambda: None)
    serve(manager, loaded(tmp_path))
    assert not manager.ready()
    manager.started()
    assert manager.ready()
    fails(manager, "2", "a bad update")
    assert manager.ready(), "which takes no replica away"
    assert manager.close(10)


def test_entries_are_as_they_were_when_somebody_looked(tmp_path: Path, manager: ModelManager) -> None:
    for number in (10, 2):
        serve(manager, loaded(tmp_path, number))
    seen = manager.entries()
    assert [(one.version, one.state) for one in seen] == [("2", "READY"), ("10", "READY")]
    with manager.loading("fake") as entry:
        manager.remove(entry, "2", unloaded=False)
    assert seen[0].state == "READY"
    assert seen[0].alive


class Standing:
    """As much of a failover as the catalogue sees."""

    ended = False

    def broken_backends(self) -> tuple[str, ...]:
        return ("onnx_runtime",)

    def stop(self) -> None:
        self.ended = True

    def leave(self) -> None: ...


def test_one_failover_stands_by_a_version_until_it_has_ended(tmp_path: Path, manager: ModelManager) -> None:
    one = loaded(tmp_path)
    serve(manager, one)
    asked = []

    def made(of: object) -> Failover:
        asked.append(of)
        return cast(Failover, Standing())

    first = manager.failover(one.model, made)
    assert first is not None
    assert manager.failover(one.model, made) is first
    assert asked == [one]
    assert manager.entries()[0].broken == ("onnx_runtime",)
    first.stop()
    assert manager.failover(one.model, made) not in (None, first)


def test_nothing_stands_by_a_model_that_answers_no_longer(tmp_path: Path, manager: ModelManager) -> None:
    old, new = loaded(tmp_path), loaded(tmp_path)
    serve(manager, old, "first files")
    assert manager.identity_of(old.model) == "first files"
    serve(manager, new, "second files")

    def made(of: object) -> Failover:
        raise AssertionError("nothing is made for it")

    assert manager.failover(old.model, made) is None
    assert (manager.identity_of(old.model), manager.identity_of(new.model)) == (None, "second files")


def test_what_is_not_known_has_no_entry(manager: ModelManager) -> None:
    assert manager.known("m") is None
    assert (manager.entries(), manager.shadows()) == ([], [])


KEY: Key = ("", 7)
STATEFUL = "sequence_batching {}"


def stateful(root: Path, version: int, weights: str = "0") -> Loaded:
    """A version that keeps state."""
    one = loaded(root, version, config=model_config.parse(STATEFUL, "fake"))
    assert one.model.state_layout
    one.model.state_layout = dataclasses.replace(one.model.state_layout, weights_sha256=weights * 64)
    return one


def begin(model: Model) -> Sequences:
    """A sequence lives in that version from now on."""
    home = model.sequences
    assert home is not None
    step = Step(KEY, start=True)
    assert home.begin(step, now_ns()) is Begun.GOES
    step.new = {tensor.output: np.zeros((1, *tensor.shape), tensor.dtype) for tensor in home.layout.tensors}
    home.commit([step], now_ns())
    return home


@pytest.mark.parametrize(
    ("said", "version", "answers"),
    [
        ({}, "", "1"),
        ({}, "1", "1"),
        ({}, "01", "1"),
        ({}, "2", "goes on in version 1, where it has begun, but the request names version 2"),
        ({}, "x", "failed to get model version from specified version string 'x'"),
        ({"start": True}, "", "2"),
        ({"start": True}, "1", "1"),
        (None, "", "2"),
    ],
)
def test_a_step_goes_to_the_version_that_its_sequence_is_in(
    said: dict[str, bool] | None, version: str, answers: str, manager: ModelManager, tmp_path: Path
) -> None:
    """And keeps no version alive that it does not go to, or the manager would never be closed."""
    for number in (1, 2):
        serve(manager, stateful(tmp_path, number))
        if number == 1:
            with manager.acquire("fake", "1") as model:
                begin(model)
    step = None if said is None else Step(KEY, **said)
    if answers.isdigit():
        with manager.acquire_step("fake", version, step) as model:
            assert model.version == answers
        return
    with pytest.raises(InvalidRequest, match=answers):
        manager.acquire_step("fake", version, step)


@pytest.mark.parametrize("then", ["2", ""], ids=["it has gone over to another version", "it has ended"])
def test_a_sequence_that_is_no_more_where_it_was_found_is_looked_for_again(
    then: str, manager: ModelManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its version has gone between the two looks: what it was found in is nobody's any more."""
    for number in (1, 2):
        serve(manager, stateful(tmp_path, number))
    with manager.acquire("fake", "2") as model:
        second = model.sequences
    lanes = manager.lanes("fake")
    assert lanes
    assert second
    gone = Sequences("1", "m", second.layout, second.policy, epochs=lambda: 1, busy=lambda key: False)
    found = iter([gone, second if then else None])
    monkeypatch.setattr(lanes, "home_of", lambda key: next(found))
    with manager.acquire_step("fake", "", Step(KEY)) as model:
        assert model.version == "2"
