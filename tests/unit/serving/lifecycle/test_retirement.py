"""Models that answer no longer: each is closed when nobody has a lease any more, whatever the others do."""

from __future__ import annotations

import queue

from serving.batching.model import Model
from serving.lifecycle.retirement import Retirement
from tests.support.gated import GatedBackend, started


def test_a_model_is_closed_when_the_last_lease_is_given_back() -> None:
    told: queue.SimpleQueue[tuple[str, list[Model]]] = queue.SimpleQueue()
    retirement = Retirement(give_back=lambda: told.put(("memory given back", retirement.models())))
    backend = GatedBackend()
    leased = started(backend)
    lease = leased.lease()
    retirement.retire(leased, lambda: told.put(("closed", retirement.models())))
    assert retirement.models() == [leased]
    assert told.empty()
    lease.release()
    assert told.get(timeout=10) == ("closed", []), "it is known no more when that is told"
    assert backend.closed.is_set()
    assert told.get(timeout=10) == ("memory given back", [])


def test_one_that_is_still_leased_keeps_no_other_waiting() -> None:
    closed: queue.SimpleQueue[str] = queue.SimpleQueue()
    retirement = Retirement(give_back=lambda: None)
    first, second = (started(GatedBackend()) for _ in range(2))
    lease = first.lease()
    retirement.retire(first, lambda: closed.put("first"))
    retirement.retire(second, lambda: closed.put("second"))
    assert closed.get(timeout=10) == "second"
    assert retirement.models() == [first]
    lease.release()
    assert closed.get(timeout=10) == "first"
