"""Exchanging what is in memory: what serves on, what drains, and what is told of it."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import LoadFailed, NotInRepository, NotReady, RepositoryError
from serving.lifecycle.failover import Failover
from serving.lifecycle.manager import ModelManager
from serving.lifecycle.versions import ModelEntry
from tests.support.loading import loaded, serve
from tests.support.threads import HandClock, TellingLock, beside


@pytest.fixture
def manager() -> Iterator[ModelManager]:
    made = ModelManager(give_back=lambda: None)
    made.started()
    yield made
    assert made.close(10)


def states(manager: ModelManager) -> dict[str, tuple[str, str]]:
    """State and reason of every version."""
    return {one.version: (one.state, one.reason) for one in manager.entries()}


def test_two_first_loads_of_a_model_do_not_overtake_each_other() -> None:
    """Both are given the same thing to fill, one after the other, though nothing is known of the model yet."""
    manager = ModelManager(clock=HandClock())
    order: queue.SimpleQueue[str] = queue.SimpleQueue()

    def second() -> ModelEntry:
        with manager.loading("m") as known:
            order.put("second")
            return known

    with manager.loading("m") as first:
        assert isinstance(first.loading, TellingLock)
        got = beside(second)
        assert first.loading.wanted.wait(10)
        order.put("first")
    assert got.get(timeout=10) is first
    assert [order.get(timeout=10) for _ in range(2)] == ["first", "second"]
    assert manager.known("m") is None
    assert not manager.is_loading
    with manager.loading("m") as third:
        assert third is not first, "what was never loaded is not kept"


def test_the_old_one_drains_when_the_new_one_answers(tmp_path: Path, manager: ModelManager) -> None:
    old, new = loaded(tmp_path), loaded(tmp_path)
    serve(manager, old)
    lease = manager.acquire("fake")
    serve(manager, new, "newer files")
    with manager.acquire("fake") as leased:
        assert leased is new.model
    assert old.model.alive, "whoever has leased it is still answered"
    lease.release()
    assert manager.swaps.snapshot() == {}, "the same backend is no swap"


def test_what_serves_as_it_is_need_not_be_loaded(tmp_path: Path, manager: ModelManager) -> None:
    serve(manager, loaded(tmp_path), "its files")
    with manager.loading("fake") as entry:
        assert not manager.announce(entry, "1", "its files")
        assert manager.announce(entry, "1", "newer files")
        assert manager.announce(entry, "2", "its files")
    assert states(manager) == {"1": ("READY", ""), "2": ("LOADING", "")}


def test_a_failure_of_the_whole_model_is_a_remark_on_what_serves(tmp_path: Path, manager: ModelManager) -> None:
    serve(manager, loaded(tmp_path))
    with manager.loading("fake") as entry:
        error = manager.refuse(entry, "", RepositoryError("no version"))
        assert str(error) == "load failed for model 'fake': no version"
        assert str(manager.refuse(entry, "2", RepositoryError("damaged"))).endswith("'fake': version 2: damaged")
    assert states(manager) == {"1": ("READY", "not replaced: no version"), "2": ("UNAVAILABLE", "damaged")}
    assert manager.failures.snapshot() == {("fake", "", "repository"): 1, ("fake", "2", "repository"): 1}
    with manager.acquire("fake", "1") as leased:
        assert leased.version == "1"


def test_nothing_is_kept_of_a_name_that_only_a_client_knows(manager: ModelManager) -> None:
    with pytest.raises(NotInRepository), manager.loading("made up"):
        raise NotInRepository("failed to load 'made up'")
    assert manager.entries() == []
    assert manager.failures.snapshot() == {}


def test_whatever_goes_wrong_while_a_model_is_loaded_is_its_reason(manager: ModelManager) -> None:
    with pytest.raises(LoadFailed, match="load failed for model 'm': a fault of ours"), manager.loading("m"):
        raise ZeroDivisionError("a fault of ours")
    assert states(manager) == {"": ("UNAVAILABLE", "a fault of ours")}


@pytest.mark.parametrize(("unloaded", "left"), [(True, {"1": ("UNAVAILABLE", "unloaded")}), (False, {})])
def test_what_leaves_is_leaving_until_the_last_lease_is_given_back(
    unloaded: bool, left: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    closed: queue.SimpleQueue[None] = queue.SimpleQueue()
    manager = ModelManager(give_back=lambda: closed.put(None))
    serve(manager, loaded(tmp_path))
    lease = manager.acquire("fake")
    with manager.loading("fake") as entry:
        manager.remove(entry, "1", unloaded=unloaded)
    assert states(manager) == {"1": ("UNLOADING", "")}
    assert manager.busy() is False, "nothing is asked of it"
    lease.release()
    closed.get(timeout=10)
    assert states(manager) == left


@pytest.mark.parametrize(("stands_in", "let_in"), [(False, False), (True, True)])
def test_what_a_server_that_leaves_still_lets_in(
    stands_in: bool, let_in: bool, tmp_path: Path, manager: ModelManager
) -> None:
    """Requests wait for what stands in that were taken before; they are answered until everything is closed."""
    one = loaded(tmp_path)
    manager.hurry()
    with manager.loading("fake") as entry:
        manager.announce(entry, "1", "its files")
        if let_in:
            manager.install(entry, one, "device_lost", "its files", stands_in=stands_in)
        else:
            with pytest.raises(NotReady, match="Server exiting"):
                manager.install(entry, one, "requested", "its files", stands_in=stands_in)
    assert one.model.alive is let_in


def test_nothing_is_let_in_when_everything_is_closed(tmp_path: Path, manager: ModelManager) -> None:
    one = loaded(tmp_path)
    assert manager.close(10)
    with manager.loading("fake") as entry, pytest.raises(NotReady, match="Server exiting"):
        manager.install(entry, one, "device_lost", "its files", stands_in=True)
    assert not one.model.alive


def test_whoever_asks_for_readiness_is_told_of_every_change(tmp_path: Path) -> None:
    seen: list[bool] = []
    manager = ModelManager(lambda: seen.append(manager.ready()), give_back=lambda: None)
    manager.started()
    serve(manager, loaded(tmp_path))
    assert seen[0]
    assert seen[-1]
    assert manager.close(10)


def test_an_exchange_takes_place_where_the_old_one_still_serves(tmp_path: Path, manager: ModelManager) -> None:
    old, new, late = loaded(tmp_path), loaded(tmp_path), loaded(tmp_path)
    serve(manager, old)
    assert manager.exchange(old.model, new, "measured")
    with manager.acquire("fake") as leased:
        assert leased is new.model
    assert manager.identity_of(new.model) == "its files", "the same load of it would change nothing"
    assert not manager.exchange(old.model, late, "measured")
    assert not late.model.alive, "it was closed"
    with manager.acquire("fake") as leased:
        assert leased is new.model


def test_what_is_known_of_what_serves_becomes_more(tmp_path: Path, manager: ModelManager) -> None:
    one = loaded(tmp_path)
    serve(manager, one)
    more = dataclasses.replace(one, damaged={"torchscript": "no graph"})
    assert manager.tell(one, more)
    assert manager.serving() == [more]
    assert states(manager) == {"1": ("READY", "torchscript cannot serve it: no graph")}
    assert manager.failures.snapshot() == {("fake", "1", "repository"): 1}
    assert manager.tell(more, dataclasses.replace(more, tried="at a lower level"))
    assert manager.failures.snapshot() == {("fake", "1", "repository"): 1}, "counted once"
    assert not manager.tell(one, more), "somebody else has said more meanwhile"
    serve(manager, loaded(tmp_path), "newer files")
    assert not manager.tell(more, one)


def test_what_has_broken_is_not_among_what_serves(tmp_path: Path, manager: ModelManager) -> None:
    """Its failover stands by it."""
    one = loaded(tmp_path)
    serve(manager, one)
    assert manager.serving() == [one]
    failover = Failover(one, 3600, lambda *_: False, lambda: manager.acquire("fake"))
    assert manager.failover(one.model, lambda _: failover) is failover
    assert manager.serving() == []
    failover.stop()
    assert manager.serving() == [one], "it has recovered"
