"""The worker's loop, driven through a backend that computes only when the test lets it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from serving.batching.guard import Guard
from serving.batching.pending import Pending
from serving.batching.plan import Take, Wait
from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.errors import Cancelled, ComputeFailed, DeadlineExceeded, InvalidInput, NotReady, Overloaded
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import now_ns
from tests.support.gated import Answer, start


def test_a_batch_forms_while_the_previous_one_runs_and_everyone_gets_their_own_rows() -> None:
    line, backend, metrics = start()
    first = Answer(1)
    line.submit(first.pending)
    assert backend.begun.get(timeout=10) == (1, ("y",))
    others = [Answer(2, rows=2), Answer(3), Answer(4, output="z")]
    for other in others:
        line.submit(other.pending)
    assert line.depth == 3
    backend.permits.put(None)
    assert first.wait() is None
    assert backend.begun.get(timeout=10) == (4, ("y", "z"))
    backend.permits.put(None)
    assert [other.wait() for other in others] == [None] * 3
    np.testing.assert_array_equal(others[0].outputs["y"], np.full((2, 2), 4))
    np.testing.assert_array_equal(others[1].outputs["y"], np.full((1, 2), 6))
    assert list(others[2].outputs) == ["z"]
    line.drain()
    assert (metrics.requests["success"], metrics.rows_computed) == (4, 5)
    assert {rows: batch.executions for rows, batch in metrics.batches.items()} == {1: 1, 4: 1}


class Counted(Answer):
    """Keeps, for each hand-over, how many answers it had and how many were counted when it came."""

    def __init__(self, value: float, metrics: ModelMetrics, seen: list[tuple[int, int]]) -> None:
        super().__init__(value)
        self._metrics = metrics
        self._seen = seen

    @staticmethod
    def finish_all(requesters: Sequence[Answer]) -> None:
        first = requesters[0]
        assert isinstance(first, Counted)
        first._seen.append((len(requesters), first._metrics.requests["success"]))
        Answer.finish_all(requesters)


def test_answers_are_handed_over_once_a_batch_and_counted_before() -> None:
    line, backend, metrics = start()
    seen: list[tuple[int, int]] = []
    answers = [Counted(number, metrics, seen) for number in range(4)]
    line.submit(answers[0].pending)
    backend.begun.get(timeout=10)
    for answer in answers[1:]:
        line.submit(answer.pending)
    for _ in range(2):
        backend.permits.put(None)
    assert [answer.wait() for answer in answers] == [None] * 4
    line.drain()
    assert seen == [(1, 1), (3, 4)]


def test_an_answer_that_cannot_be_sent_fails_alone() -> None:
    line, backend, metrics = start()
    first = Answer(1)
    line.submit(first.pending)
    backend.begun.get(timeout=10)
    good = Answer(2)
    refused, broken = Answer(3, fails=InvalidInput("too large to order")), Answer(4, fails=ZeroDivisionError("why"))
    for other in (good, refused, broken):
        line.submit(other.pending)
    for _ in range(2):
        backend.permits.put(None)
    assert [first.wait(), good.wait()] == [None, None]
    assert str(refused.wait()) == "too large to order"
    assert str(broken.wait()) == "model 'm' version 1 gave what cannot be sent: ZeroDivisionError: why"
    line.drain()
    assert (metrics.requests["success"], metrics.rows_computed) == (2, 4)


def test_one_bad_request_does_not_fail_its_neighbours() -> None:
    line, backend, metrics = start()
    first = Answer(1)
    line.submit(first.pending)
    backend.begun.get(timeout=10)
    answers = [Answer(2), Answer(3), Answer(4)]
    for answer in answers:
        line.submit(answer.pending)
    bad = ValueError("token 99")
    for permit in (None, bad, None, bad, None):  # the first; all three together; each of them alone
        backend.permits.put(permit)
    assert [answer.wait() is None for answer in (first, *answers)] == [True, True, False, True]
    line.drain()
    assert (metrics.requests["success"], metrics.rows_computed) == (3, 3)


def test_a_full_queue_refuses_at_the_door_and_takes_again_when_there_is_room() -> None:
    line, backend, _ = start(BatchPolicy(queue=QueuePolicy(max_requests=1), dynamic=False))
    running, queued = Answer(1), Answer(2)
    line.submit(running.pending)
    backend.begun.get(timeout=10)
    line.submit(queued.pending)
    with pytest.raises(Overloaded, match=r"Exceeds maximum queue size.*allows 1.*max_queue_size"):
        line.submit(Answer(3).pending)
    backend.permits.put(None)
    assert running.wait() is None
    backend.begun.get(timeout=10)
    later = Answer(4)
    line.submit(later.pending)
    for _ in range(2):
        backend.permits.put(None)
    assert (queued.wait(), later.wait()) == (None, None)
    line.drain()


def test_a_backend_that_fails_fails_its_batch_and_nothing_else() -> None:
    line, backend, metrics = start()
    failing, following = Answer(1), Answer(2)
    line.submit(failing.pending)
    backend.begun.get(timeout=10)
    line.submit(following.pending)
    backend.permits.put(RuntimeError("out of memory"))
    error = failing.wait()
    assert isinstance(error, ComputeFailed)
    assert "RuntimeError: out of memory" in str(error)
    backend.permits.put(None)
    assert following.wait() is None
    line.drain()
    assert metrics.requests["success"] == 1


def test_who_has_gone_or_waited_too_long_is_not_computed() -> None:
    line, backend, _ = start()
    running = Answer(1)
    line.submit(running.pending)
    backend.begun.get(timeout=10)
    gone, late, patient = Answer(2), Answer(3, deadline_ns=now_ns() + 1_000_000), Answer(4)
    for answer in (gone, late, patient):
        line.submit(answer.pending)
    gone.pending.cancel()
    late.wait_for_deadline()
    backend.permits.put(None)
    assert isinstance(gone.wait(), Cancelled)
    assert isinstance(late.wait(), DeadlineExceeded)
    assert backend.begun.get(timeout=10)[0] == 1
    backend.permits.put(None)
    assert patient.wait() is None
    line.drain()


def test_who_goes_because_the_deadline_has_passed_has_waited_too_long() -> None:
    """gRPC tells of the end of such a call as of any other whose client has gone."""
    line, backend, _ = start()
    running = Answer(1)
    line.submit(running.pending)
    backend.begun.get(timeout=10)
    late = Answer(2, deadline_ns=now_ns() + 1_000_000)
    line.submit(late.pending)
    late.wait_for_deadline()
    late.pending.cancel()
    backend.permits.put(None)
    assert isinstance(late.wait(), DeadlineExceeded)
    line.drain()


def test_a_deadline_that_has_passed_is_refused_at_the_door() -> None:
    line, _, _ = start()
    with pytest.raises(DeadlineExceeded):
        line.submit(Answer(1, deadline_ns=now_ns()).pending)
    line.drain()


def test_draining_answers_what_is_queued_refuses_what_comes_and_closes_the_backend() -> None:
    line, backend, _ = start(BatchPolicy(max_rows=2, max_delay_ns=3_600_000_000_000))
    queued = [Answer(1), Answer(2, steps=5), Answer(3)]
    for answer in queued:
        line.submit(answer.pending)
    draining = threading.Thread(target=line.drain)
    draining.start()
    for _ in range(2):
        backend.permits.put(None)
    assert [answer.wait() for answer in queued] == [None] * 3
    draining.join(10)
    assert backend.closed.is_set()
    with pytest.raises(NotReady, match="being unloaded"):
        line.submit(Answer(4).pending)
    line.drain()


def test_draining_ends_when_the_last_who_waited_has_gone() -> None:
    """Nothing is left to compute then, and nothing comes that would wake the worker."""
    line, backend, _ = start()
    running, gone = Answer(1), Answer(2)
    line.submit(running.pending)
    backend.begun.get(timeout=10)
    line.submit(gone.pending)
    gone.pending.cancel()
    assert not line.drain(0)
    backend.permits.put(None)
    assert running.wait() is None
    assert isinstance(gone.wait(), Cancelled)
    assert backend.closed.wait(10)


def test_who_goes_while_a_batch_waits_for_company_is_let_go_at_once() -> None:
    line, backend, _ = start(BatchPolicy(max_delay_ns=3_600_000_000_000))
    gone, late = Answer(1), Answer(2, deadline_ns=now_ns() + 5_000_000)
    for answer in (gone, late):
        line.submit(answer.pending)
    gone.pending.cancel()
    assert isinstance(gone.wait(), Cancelled)
    assert isinstance(late.wait(), DeadlineExceeded)
    assert line.depth == 0
    assert line.drain(10)
    assert backend.begun.empty()


def test_hurrying_ends_the_wait_for_company() -> None:
    line, backend, _ = start(BatchPolicy(max_delay_ns=3_600_000_000_000))
    answer = Answer(1)
    line.submit(answer.pending)
    line.hurry()
    backend.permits.put(None)
    assert answer.wait() is None
    assert line.drain(10)


def test_draining_gives_up_when_its_time_is_over() -> None:
    line, backend, _ = start()
    answer = Answer(1)
    line.submit(answer.pending)
    backend.begun.get(timeout=10)
    assert not line.drain(0)
    assert line.alive
    backend.permits.put(None)
    assert answer.wait() is None
    assert line.drain(10)


def test_the_log_holds_once_where_a_batch_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    line, backend, _ = start(guard=Guard(failures=2))
    first = Answer(1)
    line.submit(first.pending)
    backend.begun.get(timeout=10)
    bad, good = Answer(2), Answer(3)
    line.submit(bad.pending)
    line.submit(good.pending)
    for permit in (None, ValueError("token 99"), ValueError("token 99 again"), None):  # both together, each alone
        backend.permits.put(permit)
    assert [answer.wait() is None for answer in (first, bad, good)] == [True, False, True]
    other = Answer(4)
    line.submit(other.pending)
    for _ in range(2):
        backend.permits.put(ValueError("token 98"))
    assert other.wait()
    line.drain()
    assert [(record.getMessage(), record.exc_info is not None) for record in caplog.records] == [
        ("model 'm' version 1 failed on a batch of 2 rows", True),
        ("model 'm' version 1 failed again, on 1 of these rows: ValueError: token 99 again", False),
        ("model 'm' version 1 failed on a batch of 1 rows", True),
        ("model 'm' version 1 failed again, on 1 of these rows: ValueError: token 98", False),
    ]


def test_a_worker_that_ends_leaves_nobody_waiting() -> None:
    """No known request does this; it is what stands between a fault of ours and a client that waits for ever."""

    def broken(waiting: Sequence[Pending], *_: object) -> Take | Wait:
        if waiting:
            raise ArithmeticError("a fault of the server")
        return Wait(None)

    line, backend, _ = start(decide=broken)
    answer = Answer(1)
    line.submit(answer.pending)
    assert isinstance(answer.wait(), ComputeFailed)
    assert backend.closed.wait(10)
    with pytest.raises(NotReady, match="its worker has ended"):
        line.submit(Answer(2).pending)
    assert line.drain(10)
    assert not line.alive
