"""One live version: who keeps it alive, how it closes, and what is left when it cannot start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from protos import model_config_pb2 as pb
from serving.backends.base import Candidate
from serving.batching.computation import Stateless
from serving.batching.guard import Guard
from serving.batching.model import Instance, Model
from serving.batching.policy import BatchPolicy
from serving.clock import SYSTEM, Clock
from serving.errors import NotReady
from serving.telemetry.counters import ModelMetrics
from tests.support.gated import SPEC, Answer, GatedBackend
from tests.support.threads import HandClock, beside


def instance(backend: GatedBackend, prepare: Callable[[], None] = lambda: None) -> Instance:
    return Instance(Stateless(backend, SPEC), prepare, Guard())


def made(policy: BatchPolicy | None = None, clock: Clock = SYSTEM) -> Model:
    return Model(
        name="m",
        version="1",
        spec=SPEC,
        config=pb.ModelConfig(),
        labels=(),
        candidate=Candidate("fake", "cpu", 1),
        verified=True,
        metrics=ModelMetrics(),
        policy=policy or BatchPolicy(),
        clock=clock,
    )


def started(backends: Sequence[GatedBackend], policy: BatchPolicy | None = None, clock: Clock = SYSTEM) -> Model:
    model = made(policy, clock)
    model.start([instance(backend) for backend in backends])
    return model


def test_what_waits_and_what_is_computed_is_its_load() -> None:
    backends = [GatedBackend(), GatedBackend()]
    model = started(backends, BatchPolicy(dynamic=False))
    assert (model.instances, model.alive, model.title) == (2, True, "model 'm' version 1")
    answers = [Answer(1), Answer(2), Answer(3)]
    for answer in answers[:2]:
        model.submit(answer.pending)
    for backend in backends:
        backend.begun.get(timeout=10)
    model.submit(answers[2].pending)
    assert (model.depth, model.load) == (1, 3)
    for backend in backends:
        for _ in range(2):
            backend.permits.put(None)
    assert [answer.wait() for answer in answers] == [None] * 3
    assert model.close()
    assert (model.load, model.alive) == (0, False)


def test_a_lease_keeps_it_alive() -> None:
    """Whoever holds one may still submit, however long the model has been closing."""
    backend, clock = GatedBackend(), HandClock()
    model = started([backend], clock=clock)
    clock.waits.get(timeout=10)  # the worker, for requests
    first, second = model.lease(), model.lease()
    closing = beside(model.close)
    clock.waits.get(timeout=10)
    first.release()
    answer = Answer(1)
    second.model.submit(answer.pending)
    backend.permits.put(None)
    assert answer.wait() is None
    assert closing.empty()
    assert not backend.closed.is_set()
    second.release()
    assert closing.get(timeout=10)
    assert backend.closed.is_set()
    with pytest.raises(NotReady, match="it is being unloaded"):
        model.submit(Answer(2).pending)


def test_a_lease_is_a_context_manager_and_knows_the_follower() -> None:
    model = started([GatedBackend()])
    follower = object()
    held = model.lease(follower)  # type: ignore[arg-type]
    assert held.follower is follower
    with held as leased:
        assert leased is model
        assert not model.close(0)
    assert model.close(10)


def test_closing_ends_the_wait_for_company() -> None:
    backend = GatedBackend()
    model = started([backend], BatchPolicy(max_delay_ns=3_600_000_000_000))
    answer = Answer(1)
    model.submit(answer.pending)
    backend.permits.put(None)
    assert model.close(10)
    assert answer.wait() is None


def test_closing_gives_up_when_its_time_is_over() -> None:
    """A worker that is busy does not keep the others from ending."""
    busy, other = backends = [GatedBackend(), GatedBackend()]
    model = started(backends, BatchPolicy(dynamic=False))
    answers = [Answer(1), Answer(2)]
    for answer in answers:
        model.submit(answer.pending)
    for backend in backends:
        backend.begun.get(timeout=10)
    assert not model.close(0)
    other.permits.put(None)
    assert other.closed.wait(10)
    assert not busy.closed.is_set()
    busy.permits.put(None)
    assert model.close(10)
    assert [answer.wait() for answer in answers] == [None, None]


def test_a_lease_that_is_never_given_back_takes_all_the_time_there_is() -> None:
    backend, clock = GatedBackend(), HandClock()
    model = started([backend], clock=clock)
    clock.waits.get(timeout=10)  # the worker, for requests
    lease = model.lease()
    closing = beside(lambda: model.close(30))
    clock.waits.get(timeout=10)
    clock.passes(30)
    assert not closing.get(timeout=10)
    assert model.alive, "whoever has the lease may still be answered"
    lease.release()
    assert model.close()


class Unprepared(Exception):
    """What a runtime raises that cannot be warmed up."""


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_one_instance_fails_to_prepare_closes_all(failing: int) -> None:
    backends = [GatedBackend() for _ in range(3)]
    prepared: list[int] = []

    def prepare(place: int) -> Callable[[], None]:
        def prepares() -> None:
            if place == failing:
                raise Unprepared
            prepared.append(place)

        return prepares

    model = made()
    with pytest.raises(Unprepared):
        model.start([instance(backend, prepare(place)) for place, backend in enumerate(backends)])
    assert prepared == list(range(failing)), "those behind it are not even begun"
    assert [backend.closed.is_set() for backend in backends] == [True] * 3
    with pytest.raises(NotReady):
        model.submit(Answer(1).pending)
