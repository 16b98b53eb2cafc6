"""Who stands in for a broken backend, in which order, and what becomes of the requests; the models only say who they are."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from serving.backends.base import Candidate
from serving.batching.model import Model
from serving.batching.pending import Pending
from serving.errors import (
    Cancelled,
    ComputeFailed,
    DeadlineExceeded,
    NotReady,
    RepositoryError,
    ServingError,
    UnknownVersion,
)
from serving.lifecycle.failover import Failover
from serving.loading.order import Order
from serving.loading.request import Loaded, LoadRequest
from serving.telemetry.timeline import now_ns
from tests.support.gated import Answer

FIRST, SECOND, THIRD = (Candidate(name, "cpu", 1) for name in ("onnx_runtime", "torchscript", "saved_model"))
ORDER = Order(first=(FIRST,), spare=(SECOND, THIRD))
LOST = RuntimeError("lost")


class Named:
    """As much of a model as the failover sees: it answers every request at once."""

    name, version, title = "m", "1", "model 'm' version 1"

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.mended = queue.SimpleQueue[bool]()

    def submit(self, pending: Pending, *, handed_over: bool) -> None:
        assert handed_over
        pending.requester.finish_all([pending.requester])

    def mend(self) -> None:
        self.mended.put(True)


def loaded(candidate: Candidate) -> Loaded:
    return Loaded(model=cast(Model, Named(candidate)), request=cast(LoadRequest, None), order=ORDER)


class Stage:
    """One version under failover: what can be loaded, what was tried, and what serves."""

    def __init__(self, reset_seconds: float) -> None:
        self.loadable: set[Candidate] = set()
        self.tried = queue.SimpleQueue[Candidate]()
        self.serving = loaded(FIRST)
        self.took_over = queue.SimpleQueue[tuple[Candidate, str]]()
        self.still_there = True
        self.gone: ServingError | None = None
        self.may_load = threading.Event()
        self.may_load.set()
        self.surprise: Exception | None = None
        self.failover = Failover(self.serving, reset_seconds, self._stand_in, self._lease, load_in=self.load_in)

    def load_in(self, request: object, candidate: Candidate, order: Order) -> Loaded:
        self.tried.put(candidate)
        assert self.may_load.wait(10)
        if self.surprise:
            raise self.surprise
        if candidate not in self.loadable:
            raise RepositoryError("it cannot be loaded")
        return loaded(candidate)

    def _stand_in(self, new: Loaded, old: Loaded, why: str) -> bool:
        assert old is self.serving
        if self.still_there:
            self.serving = new
            self.took_over.put((new.model.candidate, why))
        return self.still_there

    @property
    def mended(self) -> bool:
        return bool(cast(Named, self.serving.model).mended.get(timeout=10))

    def _lease(self) -> Any:
        if self.gone:
            raise self.gone
        return type("Held", (), {"model": self.serving.model})

    def breaks(self, reason: str = "device_lost") -> list[Answer]:
        """Two requests that could not be computed by what serves."""
        answers = [Answer(1), Answer(2)]
        assert self.failover.take([answer.pending for answer in answers], reason, LOST)
        return answers


MakeStage = Callable[..., Stage]


@pytest.fixture
def stage() -> Iterator[MakeStage]:
    stages: list[Stage] = []

    def made(loadable: Sequence[Candidate], reset_seconds: float = 3600) -> Stage:
        stages.append(one := Stage(reset_seconds))
        one.loadable = set(loadable)
        return one

    yield made
    for one in stages:
        one.may_load.set()
        one.failover.stop()


def outcomes(answers: Sequence[Answer]) -> list[ServingError | None]:
    return [answer.wait() for answer in answers]


@pytest.mark.parametrize(
    ("loadable", "tried", "serves"), [([SECOND, THIRD], [SECOND], SECOND), ([THIRD], [SECOND, THIRD], THIRD)]
)
def test_the_next_that_can_be_loaded_stands_in(
    loadable: list[Candidate], tried: list[Candidate], serves: Candidate, stage: MakeStage
) -> None:
    one = stage(loadable)
    assert outcomes(one.breaks()) == [None, None]
    assert [one.tried.get(timeout=10) for _ in tried] == tried
    assert one.tried.empty()
    assert one.took_over.get(timeout=10) == (serves, "device_lost")
    assert one.failover.broken_backends() == tuple(map(str, [FIRST, *tried[:-1]]))


def test_the_first_is_tried_again_before_anybody_fails(stage: MakeStage) -> None:
    """What stood in breaks too: what broke before may have mended, and its time has not come yet."""
    one = stage([SECOND])
    assert outcomes(one.breaks()) == [None, None]
    one.loadable = {FIRST}
    assert outcomes(one.breaks("exceptions")) == [None, None]
    assert [one.took_over.get(timeout=10) for _ in range(2)] == [(SECOND, "device_lost"), (FIRST, "exceptions")]
    assert [one.tried.get(timeout=10) for _ in range(3)] == [SECOND, THIRD, FIRST], (
        "those last that are known to be broken"
    )


def test_when_nobody_can_the_requests_fail_and_the_backend_is_mended(stage: MakeStage) -> None:
    one = stage([])
    for error in outcomes(one.breaks()):
        assert isinstance(error, ComputeFailed)
        assert str(error) == "model 'm' version 1 failed to compute, and nothing else can: RuntimeError: lost"
    assert one.mended
    assert one.took_over.empty()


def test_what_stands_in_and_breaks_alone_does_not_make_the_first_forgotten(stage: MakeStage) -> None:
    one = stage([SECOND], reset_seconds=0.02)
    assert outcomes(one.breaks()) == [None, None]
    assert one.took_over.get(timeout=10) == (SECOND, "device_lost")
    one.loadable = set()
    assert all(isinstance(error, ComputeFailed) for error in outcomes(one.breaks()))
    assert one.mended
    one.loadable = {FIRST}
    assert one.took_over.get(timeout=10) == (FIRST, "recovered")


def test_it_is_tried_again_until_it_serves(stage: MakeStage) -> None:
    one = stage([SECOND], reset_seconds=0.0)
    assert outcomes(one.breaks()) == [None, None]
    assert one.tried.get(timeout=10) == SECOND
    assert [one.tried.get(timeout=10) for _ in range(3)] == [FIRST] * 3
    one.loadable = {FIRST}
    assert [one.took_over.get(timeout=10) for _ in range(2)] == [(SECOND, "device_lost"), (FIRST, "recovered")]
    assert one.failover.join(10)
    assert one.failover.broken_backends() == ()
    assert not one.failover.take([], "exceptions", LOST), "it has nothing to do any more"


@pytest.mark.parametrize("gone", [None, UnknownVersion("it was unloaded"), NotReady("Server exiting")])
def test_requests_go_to_whatever_serves_when_the_version_was_loaded_anew(
    gone: ServingError | None, stage: MakeStage
) -> None:
    one = stage([SECOND])
    one.still_there, one.gone = False, gone
    for error in outcomes(one.breaks()):
        if gone:
            assert isinstance(error, NotReady)
            assert str(error) == f"its backend has failed, and {gone}"
        else:
            assert error is None
    assert one.failover.join(10)
    assert not one.failover.take([], "exceptions", LOST)


def test_nobody_waits_for_a_load_that_is_not_needed_any_more(stage: MakeStage) -> None:
    one = stage([SECOND])
    one.may_load.clear()
    answers = one.breaks()
    assert one.tried.get(timeout=10) == SECOND
    one.serving, one.still_there = loaded(THIRD), False
    one.failover.stop()
    one.failover.leave()
    assert outcomes(answers) == [None, None]


def test_whose_client_goes_while_a_stand_in_is_loaded_is_let_go_at_once(stage: MakeStage) -> None:
    """Each holds a thread that could answer other models."""
    one = stage([SECOND])
    one.may_load.clear()
    gone, late, patient = Answer(1), Answer(2, deadline_ns=now_ns() + 1_000_000), Answer(3)
    assert one.failover.take([gone.pending, late.pending, patient.pending], "device_lost", LOST)
    assert one.tried.get(timeout=10) == SECOND
    late.wait_for_deadline()
    gone.pending.cancel()
    assert isinstance(gone.wait(), Cancelled)
    assert isinstance(late.wait(), DeadlineExceeded)
    one.may_load.set()
    assert patient.wait() is None


def test_a_stand_in_that_fails_in_a_way_that_nobody_foresaw_is_passed_over(stage: MakeStage) -> None:
    one = stage([SECOND])
    one.surprise = ZeroDivisionError("whatever a runtime raises")
    assert all(isinstance(error, ComputeFailed) for error in outcomes(one.breaks()))
    assert [one.tried.get(timeout=10) for _ in range(2)] == [SECOND, THIRD]
