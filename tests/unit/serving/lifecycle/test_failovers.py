"""The requests that a broken backend leaves: which failover gets them, and that nobody's request ends under a lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.backends.base import Candidate
from serving.batching.pending import Pending
from serving.clock import Clock
from serving.errors import Cancelled, ComputeFailed, NotReady
from serving.lifecycle.failovers import Failovers
from serving.lifecycle.manager import ModelManager
from serving.loading import loader
from serving.loading.order import Order
from serving.loading.request import Loaded, LoadRequest
from tests.support.gated import Answer, Asking
from tests.support.loading import asked, loaded, serve
from tests.support.threads import beside

LOST = RuntimeError("the GPU is lost")
FAKE, SPARE = Candidate("fake", "cpu", 1), Candidate("torchscript", "cpu", 1)
ORDER = Order(first=(FAKE,), spare=(SPARE,))


class Stage:
    """A version of the fake model whose backend is said to be broken, and a stand-in that is loaded when the test lets it."""

    def __init__(self, root: Path) -> None:
        self.manager = ModelManager(give_back=lambda: None)
        self.manager.started()
        self.failovers = Failovers(self.manager, reset_seconds=3600, load_in=self._load_in)
        self.root = root
        self.serving = self._ordered()
        serve(self.manager, self.serving)
        self.begun, self.may_load = threading.Event(), threading.Event()
        self.stand_ins: list[Loaded] = []

    def _ordered(self) -> Loaded:
        one = loaded(self.root)
        return Loaded(model=one.model, request=one.request, order=ORDER)

    def _load_in(self, request: LoadRequest, candidate: Candidate, order: Order) -> Loaded:
        """The fake model again, under the name of another backend."""
        self.begun.set()
        assert self.may_load.wait(10)
        made = loader.load_in(request, FAKE, order)
        made.model.candidate = candidate
        self.stand_ins.append(made)
        return made

    def breaks(self, *answers: Answer, model: Any = None) -> None:
        requests: Sequence[Pending] = [answer.pending for answer in answers]
        self.failovers.on_broken(model or self.serving.model, list(requests), "device_lost", LOST)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.may_load.set()
    assert made.manager.close(10)


def test_requests_go_to_whoever_stands_in(stage: Stage) -> None:
    answers = [asked(1), asked(2)]
    stage.breaks(answers[0])
    assert stage.begun.wait(10)
    stage.breaks(answers[1])  # the same failover gets what comes meanwhile
    assert stage.manager.is_loading
    stage.may_load.set()
    assert [answer.wait() for answer in answers] == [None, None]
    assert [float(answer.outputs["y"][0, 0]) for answer in answers] == [6, 12]
    assert [len(answer.moved_to) for answer in answers] == [1, 1]
    (status,) = stage.manager.entries()
    assert status.reason == "fell back from fake (device_lost): RuntimeError: the GPU is lost"
    assert status.broken == ("fake",)
    assert stage.manager.swaps.snapshot() == {("fake", "1", "fake", "torchscript", "device_lost"): 1}
    for answer in answers:
        answer.moved_to[0].release()  # type: ignore[attr-defined]


class NoThreads(Clock):
    """A system that has no thread left."""

    def start(self, work: Callable[[], None], name: str) -> Any:
        raise RuntimeError("can't start new thread")


def test_without_a_thread_for_it_the_requests_fail_and_nothing_hangs(stage: Stage) -> None:
    poor = Failovers(stage.manager, reset_seconds=3600, clock=NoThreads())
    answer = asked(1)
    poor.on_broken(stage.serving.model, [answer.pending], "device_lost", LOST)
    error = answer.wait()
    assert isinstance(error, ComputeFailed)
    assert "the GPU is lost; can't start new thread" in str(error)


def test_nobodys_request_ends_under_the_managers_lock(stage: Stage) -> None:
    """Its client has gone before it is handed over; whoever is told may ask what is known, and gets an answer."""
    gone = Asking(stage.manager.entries)
    gone.pending.cancel()
    stage.breaks(gone)
    assert isinstance(gone.wait(), Cancelled)


def test_requests_of_a_model_that_was_replaced_go_to_the_new_one(stage: Stage) -> None:
    old, answer = stage.serving.model, asked(1)
    held = old.lease()  # as the request that is handed over has one
    serve(stage.manager, loaded(stage.root), "newer files")
    stage.breaks(answer, model=old)
    assert answer.wait() is None
    assert not stage.begun.is_set(), "nothing was loaded for it"
    answer.moved_to[0].release()  # type: ignore[attr-defined]
    held.release()


def test_requests_of_a_version_that_was_unloaded_fail(stage: Stage) -> None:
    old, answer = stage.serving.model, asked(1)
    held = old.lease()
    with stage.manager.loading("fake") as entry:
        stage.manager.remove(entry, "1", unloaded=True)
    stage.breaks(answer, model=old)
    error = answer.wait()
    assert isinstance(error, NotReady)
    assert str(error).startswith(
        "its backend has failed, and Request for unknown model: 'fake' version 1 is not at ready"
    )
    held.release()


def test_a_stand_in_that_comes_too_late_is_closed(stage: Stage) -> None:
    """The version was loaded anew meanwhile, and its requests have gone there."""
    answer = asked(1)
    stage.breaks(answer)
    assert stage.begun.wait(10)
    failover = stage.manager.failover(stage.serving.model, lambda of: pytest.fail("there is one"))
    assert failover
    newer = loaded(stage.root)
    serve(stage.manager, newer, "newer files")
    assert answer.wait() is None
    answer.moved_to[0].release()  # type: ignore[attr-defined]
    stage.may_load.set()
    assert failover.join(10)
    (late,) = stage.stand_ins
    assert not late.model.alive
    with stage.manager.acquire("fake") as leased:
        assert leased is newer.model


def test_a_stand_in_waits_until_the_model_is_not_being_loaded(stage: Stage) -> None:
    """Loads of a model do not overtake each other; whoever looks is not kept waiting by them."""
    answer = asked(1)
    with stage.manager.loading("fake"):
        stage.breaks(answer)
        stage.may_load.set()
        assert stage.begun.wait(10)
        assert beside(stage.manager.entries).get(timeout=10)[0].broken == ("fake",)
        assert answer.moved_to == []
    assert answer.wait() is None
    answer.moved_to[0].release()  # type: ignore[attr-defined]
