"""A backend that raises: who is to blame for it, and who answers then. The worker is driven as in `test_worker`."""

from __future__ import annotations

import queue

import pytest

from serving.batching.guard import Guard
from serving.batching.pending import Pending
from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.errors import Cancelled, ComputeFailed, DeadlineExceeded, Overloaded
from serving.telemetry.timeline import now_ns
from tests.support.gated import Answer, GatedBackend, Line, start


class Elsewhere:
    """Where a broken backend's requests go: what was handed over, and why, in the order in which it came."""

    def __init__(self, healthy: bool = False, reason: str = "") -> None:
        self.came: queue.SimpleQueue[tuple[list[Pending], str, str]] = queue.SimpleQueue()
        self.asked = 0
        self._healthy = healthy
        self._reason = reason

    def guard(self, failures: int = 3) -> Guard:
        def healthy() -> bool:
            self.asked += 1
            return self._healthy

        def hand_over(requests: list[Pending], reason: str, error: Exception) -> None:
            self.came.put((requests, reason, str(error)))

        return Guard(failures=failures, healthy=healthy, lost=lambda error: self._reason, hand_over=hand_over)

    def got(self, *answers: Answer, reason: str = "exceptions", error: str = "broken") -> bool:
        """Whether the next that was handed over is this."""
        return self.came.get(timeout=10) == ([answer.pending for answer in answers], reason, error)


BROKEN = RuntimeError("broken")


@pytest.mark.parametrize("failures", [1, 3])
def test_a_request_that_a_healthy_backend_cannot_compute_fails_alone(failures: int) -> None:
    elsewhere = Elsewhere(healthy=True)
    line, backend, metrics = start(guard=elsewhere.guard(failures))
    for _ in range(2):  # it is given as many chances the second time
        poison = Answer(1)
        line.submit(poison.pending)
        for _ in range(failures):
            backend.permits.put(BROKEN)
        error = poison.wait()
        assert isinstance(error, ComputeFailed)
        assert str(error) == "model 'm' version 1 failed to compute: RuntimeError: broken"
    assert elsewhere.asked == 2
    good = Answer(2)
    line.submit(good.pending)
    backend.permits.put(None)
    assert good.wait() is None
    assert line.drain(10)
    assert backend.begun.qsize() == 2 * failures + 1
    assert elsewhere.came.empty()
    assert metrics.requests["success"] == 1


def test_a_backend_that_fails_now_and_then_is_asked_again() -> None:
    elsewhere = Elsewhere()
    line, backend, _ = start(guard=elsewhere.guard(3))
    for _ in range(3):  # never three times in a row
        answer = Answer(1)
        line.submit(answer.pending)
        for permit in (BROKEN, BROKEN, None):
            backend.permits.put(permit)
        assert answer.wait() is None
    assert line.drain(10)
    assert elsewhere.asked == 0
    assert elsewhere.came.empty()


def test_who_has_gone_while_its_batch_failed_is_not_computed_again() -> None:
    line, backend, _ = start(BatchPolicy(max_rows=3, max_delay_ns=3_600_000_000_000), guard=Elsewhere().guard())
    gone, late, patient = Answer(1), Answer(2, deadline_ns=now_ns() + 3_600_000_000_000), Answer(3)
    for answer in (gone, late, patient):
        line.submit(answer.pending)
    assert backend.begun.get(timeout=10)[0] == 3
    gone.pending.cancel()
    late.pending.deadline_ns = now_ns()
    backend.permits.put(BROKEN)
    assert isinstance(gone.wait(), Cancelled)
    assert isinstance(late.wait(), DeadlineExceeded)
    backend.permits.put(None)
    assert patient.wait() is None
    assert line.drain(10)
    assert backend.begun.qsize() == 1


def test_a_broken_backend_hands_over_what_it_has_what_waits_and_what_comes() -> None:
    elsewhere = Elsewhere()
    line, backend, metrics = start(guard=elsewhere.guard(3))
    first, waiting = Answer(1), [Answer(2), Answer(3, steps=5)]
    line.submit(first.pending)
    backend.begun.get(timeout=10)
    for answer in waiting:
        line.submit(answer.pending)
    for _ in range(3):
        backend.permits.put(BROKEN)
    assert elsewhere.got(first)
    assert elsewhere.got(*waiting)
    for value in (4, 5):
        later = Answer(value)
        line.submit(later.pending)
        assert elsewhere.got(later)
    assert elsewhere.asked == 1
    assert (line.load, metrics.requests["success"]) == (0, 0)
    assert line.drain(10)
    assert backend.begun.qsize() == 2, "a broken backend was asked again"


def test_a_batch_is_handed_over_in_the_order_in_which_it_came() -> None:
    """Those that could still be computed are answered; from the first that could not, all are handed over."""
    elsewhere = Elsewhere()
    line, backend, metrics = start(guard=elsewhere.guard(2))
    running = Answer(0)
    line.submit(running.pending)
    backend.begun.get(timeout=10)
    batch = [Answer(1), Answer(2), Answer(3)]
    for answer in batch:
        line.submit(answer.pending)
    for permit in (None, BROKEN, None, BROKEN, BROKEN):  # the first; all three; then each alone
        backend.permits.put(permit)
    assert (running.wait(), batch[0].wait()) == (None, None)
    assert elsewhere.got(batch[1])
    assert elsewhere.got(batch[2])
    assert line.drain(10)
    assert metrics.requests["success"] == 2


def test_a_backend_that_is_lost_hands_over_at_once() -> None:
    elsewhere = Elsewhere(healthy=True, reason="device_lost")
    line, backend, _ = start(guard=elsewhere.guard(1000))
    running, batch = Answer(0), [Answer(1), Answer(2)]
    line.submit(running.pending)
    backend.begun.get(timeout=10)
    for answer in batch:
        line.submit(answer.pending)
    backend.permits.put(None)
    backend.permits.put(BROKEN)
    assert running.wait() is None
    assert elsewhere.got(*batch, reason="device_lost")
    later = Answer(3)
    line.submit(later.pending)
    assert elsewhere.got(later, reason="device_lost")
    assert elsewhere.asked == 0
    assert line.drain(10)


def test_draining_ends_when_all_that_waited_was_handed_over() -> None:
    elsewhere = Elsewhere()
    line, backend, _ = start(guard=elsewhere.guard(1))
    first, waiting = Answer(1), Answer(2)
    line.submit(first.pending)
    backend.begun.get(timeout=10)
    line.submit(waiting.pending)
    assert not line.drain(0)
    backend.permits.put(BROKEN)
    assert elsewhere.got(first)
    assert elsewhere.got(waiting)
    assert backend.closed.wait(10)


def test_a_backend_that_is_mended_is_asked_again() -> None:
    elsewhere = Elsewhere()
    line, backend, _ = start(guard=elsewhere.guard(2))
    for value in (1, 2):
        answer = Answer(value)
        line.submit(answer.pending)
        for _ in range(2):  # it has lost none of its chances
            backend.permits.put(BROKEN)
        assert elsewhere.got(answer)
        line.mend()
    good = Answer(3)
    line.submit(good.pending)
    backend.permits.put(None)
    assert good.wait() is None
    assert line.drain(10)


def test_who_waits_for_a_broken_backend_may_still_go() -> None:
    elsewhere = Elsewhere()
    line, backend, _ = start(guard=elsewhere.guard(1))
    first, gone, patient = Answer(1), Answer(2), Answer(3)
    line.submit(first.pending)
    backend.begun.get(timeout=10)
    for answer in (gone, patient):
        line.submit(answer.pending)
    gone.pending.cancel()
    backend.permits.put(BROKEN)
    assert elsewhere.got(first)
    assert isinstance(gone.wait(), Cancelled)
    assert elsewhere.got(patient)
    assert line.drain(10)


def test_what_is_handed_over_to_a_full_queue_is_taken() -> None:
    """It had its place elsewhere, and waits no longer than what was there before it."""
    line, backend, _ = start(BatchPolicy(queue=QueuePolicy(max_requests=1), dynamic=False))
    running, queued, moved = Answer(1), Answer(2), Answer(3)
    line.submit(running.pending)
    backend.begun.get(timeout=10)
    line.submit(queued.pending)
    line.submit(moved.pending, handed_over=True)
    with pytest.raises(Overloaded):
        line.submit(Answer(4).pending)
    for _ in range(3):
        backend.permits.put(None)
    assert [answer.wait() for answer in (running, queued, moved)] == [None] * 3
    assert line.drain(10)


def test_with_nobody_to_hand_over_to_the_request_fails() -> None:
    """As for a shadow: whatever the error says, it is that request's, and the next one is computed."""
    line, backend, _ = start(guard=Guard(failures=1, lost=lambda error: "device_lost", told=False))
    for permit, fails in ((BROKEN, True), (None, False)):
        answer = Answer(1)
        line.submit(answer.pending)
        backend.permits.put(permit)
        assert isinstance(answer.wait(), ComputeFailed) is fails
    assert line.drain(10)


def test_what_a_healthy_instance_can_compute_is_not_handed_over() -> None:
    """One of two backends is broken: what it had goes to whoever stands in, what comes is computed by the other one."""
    elsewhere = Elsewhere(reason="device_lost")
    broken, healthy = GatedBackend(), GatedBackend()
    line = Line(broken, healthy, policy=BatchPolicy(dynamic=False), guard=elsewhere.guard())
    first, second = Answer(1), Answer(2)
    for answer in (first, second):
        line.submit(answer.pending)
    for backend in (broken, healthy):
        backend.begun.get(timeout=10)
    broken.permits.put(BROKEN)
    (handed_over,), _, _ = elsewhere.came.get(timeout=10)
    assert handed_over in (first.pending, second.pending)
    healthy.permits.put(None)
    later = Answer(3)
    line.submit(later.pending)
    healthy.permits.put(None)
    assert later.wait() is None
    assert line.drain(10)
    assert elsewhere.came.empty()
    assert broken.begun.empty(), "a broken backend was asked again"
