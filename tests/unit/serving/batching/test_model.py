"""One live version: who keeps it alive, how it closes, and what is left when it cannot start."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from serving.batching.model import Lease
from serving.batching.policy import BatchPolicy
from serving.errors import NotReady
from tests.support.gated import Answer, GatedBackend, instance, model, started
from tests.support.threads import HandClock, beside


def test_what_waits_and_what_is_computed_is_its_load() -> None:
    backends = [GatedBackend(), GatedBackend()]
    live = started(*backends, policy=BatchPolicy(dynamic=False))
    assert (live.instances, live.alive, live.title) == (2, True, "model 'm' version 1")
    answers = [Answer(1), Answer(2), Answer(3)]
    for answer in answers[:2]:
        live.submit(answer.pending)
    for backend in backends:
        backend.begun.get(timeout=10)
    live.submit(answers[2].pending)
    assert (live.depth, live.load) == (1, 3)
    for backend in backends:
        for _ in range(2):
            backend.permits.put(None)
    assert [answer.wait() for answer in answers] == [None] * 3
    assert live.close()
    assert (live.load, live.alive) == (0, False)


def test_a_lease_keeps_it_alive() -> None:
    """Whoever holds one may still submit, however long the model has been closing."""
    backend, clock = GatedBackend(), HandClock()
    live = started(backend, clock=clock)
    first, second = live.lease(), live.lease()
    closing = beside(lambda: live.close(3600))
    clock.somebody_waits(3600)
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
        live.submit(Answer(2).pending)


def test_many_leases_are_given_back_at_once_each_to_its_own_model() -> None:
    one, other = started(GatedBackend()), started(GatedBackend())
    kept = other.lease()
    Lease.release_all([one.lease(), other.lease(), one.lease()])
    assert one.close(10)
    assert not other.close(0)
    kept.release()
    assert other.close(10)


def test_a_lease_is_a_context_manager_and_knows_the_follower() -> None:
    live = started(GatedBackend())
    follower = object()
    held = live.lease(follower)  # type: ignore[arg-type]
    assert held.follower is follower
    with held as leased:
        assert leased is live
        assert not live.close(0)
    assert live.close(10)


def test_closing_ends_the_wait_for_company() -> None:
    backend = GatedBackend()
    live = started(backend, policy=BatchPolicy(max_delay_ns=3_600_000_000_000))
    answer = Answer(1)
    live.submit(answer.pending)
    backend.permits.put(None)
    assert live.close(10)
    assert answer.wait() is None


def test_closing_gives_up_when_its_time_is_over() -> None:
    """A worker that is busy does not keep the others from ending."""
    busy, other = backends = [GatedBackend(), GatedBackend()]
    live = started(*backends, policy=BatchPolicy(dynamic=False))
    answers = [Answer(1), Answer(2)]
    for answer in answers:
        live.submit(answer.pending)
    for backend in backends:
        backend.begun.get(timeout=10)
    assert not live.close(0)
    other.permits.put(None)
    assert other.closed.wait(10)
    assert not busy.closed.is_set()
    busy.permits.put(None)
    assert live.close(10)
    assert [answer.wait() for answer in answers] == [None, None]


def test_a_lease_that_is_never_given_back_takes_all_the_time_there_is() -> None:
    backend, clock = GatedBackend(), HandClock()
    live = started(backend, clock=clock)
    lease = live.lease()
    closing = beside(lambda: live.close(30))
    clock.somebody_waits(30)
    clock.passes(30)
    assert not closing.get(timeout=10)
    assert live.alive, "whoever has the lease may still be answered"
    lease.release()
    assert live.close()


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

    one = model()
    with pytest.raises(Unprepared):
        one.start([instance(backend, prepare(place)) for place, backend in enumerate(backends)])
    assert prepared == list(range(failing)), "those behind it are not even begun"
    assert [backend.closed.is_set() for backend in backends] == [True] * 3
    with pytest.raises(NotReady):
        one.submit(Answer(1).pending)
