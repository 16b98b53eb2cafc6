"""What waits for a model, and who takes it. Workers are threads of the test, and time passes by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from serving.batching.pending import Piece
from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.batching.queue import Queue
from serving.errors import Cancelled, ComputeFailed, DeadlineExceeded, NotReady, Overloaded, ServingError, TimedOut
from tests.support.gated import Answer, Asking
from tests.support.threads import HandClock, beside

HOUR_NS = 3_600_000_000_000
PATIENT = BatchPolicy(max_delay_ns=HOUR_NS)
ALONE = BatchPolicy(dynamic=False)


def made(clock: HandClock, policy: BatchPolicy | None = None, workers: int = 1) -> Queue:
    queue = Queue("model 'm' version 1", policy or BatchPolicy(), clock)
    for _ in range(workers):
        queue.join()
    return queue


def answer(steps: int = 2, deadline_ns: int | None = None) -> Answer:
    """A request that was decoded when the clock began."""
    return Answer(0, steps=steps, deadline_ns=deadline_ns, decoded_ns=0)


def offer(queue: Queue, *answers: Answer) -> None:
    for each in answers:
        queue.offer(each.pending)


def of(pieces: Sequence[Piece], *answers: Answer) -> bool:
    """Whether these are the pieces of these requests, in this order."""
    return [piece.pending for piece in pieces] == [each.pending for each in answers]


def test_who_is_passed_over_is_first_in_line_for_the_next_batch() -> None:
    queue = made(HandClock())
    first, other, second, last = answer(5), answer(7), answer(5), answer(5)
    offer(queue, first, other, second)
    assert of(queue.take(), first, second)
    offer(queue, last)
    assert (queue.depth, of(queue.take(), other), of(queue.take(), last)) == (2, True, True)
    assert queue.depth == 0


def test_a_full_queue_refuses_all_but_what_had_its_place_elsewhere() -> None:
    queue = made(HandClock(), BatchPolicy(queue=QueuePolicy(max_requests=2), dynamic=False))
    offer(queue, answer(), answer())
    with pytest.raises(Overloaded, match=r"2 requests wait for model 'm' version 1, which allows 2; .* max_queue_size"):
        queue.offer(answer().pending)
    queue.offer(answer().pending, handed_over=True)
    assert queue.depth == 3
    for _ in range(2):
        queue.take()
    offer(queue, answer())
    assert queue.depth == 2


def test_who_finds_no_room_is_told_how_long_those_that_wait_will_take() -> None:
    clock = HandClock()
    queue = made(clock, BatchPolicy(queue=QueuePolicy(max_requests=3), dynamic=False))
    offer(queue, answer())
    queue.take()
    clock.passes(0.2)
    offer(queue, answer(), answer())
    queue.take()  # the worker is back after 0.2 s
    offer(queue, answer(), answer())
    with pytest.raises(Overloaded, match=r"3 requests wait .*; try again in 600 ms, or raise max_queue_size") as told:
        queue.offer(answer().pending)
    assert told.value.retry_ms == 600
    others = [queue.full(0, 10) for _ in range(3)]
    assert [other.retry_ms for other in others if other] == [800, 1000, 1200], "one after the other, not all at once"
    queue.take()
    assert queue.full(0, 10) is None
    assert queue.full(1, 10)


def test_bytes_wait_until_they_are_taken() -> None:
    queue = made(HandClock(), BatchPolicy(max_queue_bytes=100))
    for size in (60, 40):
        asked = answer()
        asked.pending.size = size
        offer(queue, asked)
    assert queue.size == 100
    one_more = answer()
    one_more.pending.size = 1
    with pytest.raises(Overloaded, match="101 bytes of requests would wait"):
        offer(queue, one_more)
    queue.take()
    assert queue.size == 0
    offer(queue, one_more)


def test_those_that_come_together_wait_in_their_order_and_are_refused_each_for_itself() -> None:
    queue = made(HandClock(), BatchPolicy(queue=QueuePolicy(max_requests=3)))
    offer(queue, answer())
    queue.take()
    first, late, second, third, one_too_many = answer(), answer(deadline_ns=0), answer(), answer(), answer()
    refused = queue.offer_all([each.pending for each in (first, late, second, third, one_too_many)])
    assert [(pending, type(why)) for pending, why in refused] == [
        (late.pending, DeadlineExceeded),
        (one_too_many.pending, Overloaded),
    ]
    assert of(queue.take(), first, second, third)


def test_those_that_come_together_wake_as_many_workers_as_there_are_batches() -> None:
    queue = made(HandClock(), ALONE, workers=3)
    taken = [beside(queue.take) for _ in range(3)]
    answers = [answer() for _ in range(3)]
    assert queue.offer_all([each.pending for each in answers]) == []
    found = {id(piece.pending) for each in taken for piece in each.get(timeout=10)}
    assert found == {id(each.pending) for each in answers}


def test_time_that_is_up_at_the_door() -> None:
    with pytest.raises(DeadlineExceeded, match="had passed when the request was decoded"):
        made(HandClock()).offer(answer(deadline_ns=0).pending)


def test_a_worker_is_woken_when_the_time_of_one_that_waits_for_company_is_up() -> None:
    clock = HandClock()
    policy = BatchPolicy(max_delay_ns=HOUR_NS, queue=QueuePolicy(timeout_ns=1_000_000_000))
    queue, late = made(clock, policy), answer()
    offer(queue, late)
    taken = beside(queue.take)
    clock.somebody_waits(1)
    clock.passes(1)
    assert isinstance(late.wait(), TimedOut)
    queue.drain()
    assert taken.get(timeout=10) == ()


def test_for_whom_nobody_waits_is_not_taken() -> None:
    clock = HandClock()
    queue = made(clock)
    gone, late, patient = answer(), answer(deadline_ns=5_000_000), answer()
    offer(queue, gone, late, patient)
    gone.pending.cancel()
    clock.passes(0.005)
    assert of(queue.take(), patient)
    assert isinstance(gone.wait(), Cancelled)
    assert str(late.wait()) == "Deadline Exceeded: waited 5.0 ms in the queue; nothing was computed"


@pytest.mark.parametrize(
    ("event", "ends"),
    [
        (lambda clock, asked: clock.passes(1), DeadlineExceeded),
        (lambda clock, asked: asked.pending.cancel(), Cancelled),
    ],
    ids=["its deadline passes", "its client goes"],
)
def test_who_waits_for_company_is_let_go_at_once(
    event: Callable[[HandClock, Answer], None], ends: type[ServingError]
) -> None:
    clock = HandClock()
    queue, asked = made(clock, PATIENT), answer(deadline_ns=1_000_000_000)
    taken = beside(queue.take)
    clock.waits.get(timeout=10)
    offer(queue, asked)
    clock.waits.get(timeout=10)
    event(clock, asked)
    assert isinstance(asked.wait(), ends)
    queue.drain()
    assert taken.get(timeout=10) == ()


def test_company_is_waited_for_until_the_delay_is_over() -> None:
    clock = HandClock()
    queue, asked = made(clock, BatchPolicy(max_delay_ns=2_000_000_000)), [answer(), answer()]
    offer(queue, *asked)
    taken = beside(queue.take)
    clock.somebody_waits(2)
    clock.passes(1)
    clock.somebody_waits(1)
    assert taken.empty()
    clock.passes(1)
    assert of(taken.get(timeout=10), *asked)


def test_hurrying_ends_the_wait_for_company_and_refuses_nobody() -> None:
    clock = HandClock()
    queue, first, second = made(clock, PATIENT), answer(), answer()
    offer(queue, first)
    taken = beside(queue.take)
    clock.waits.get(timeout=10)
    queue.hurry()
    assert of(taken.get(timeout=10), first)
    offer(queue, second)
    assert of(queue.take(), second)


def test_a_drained_queue_gives_what_is_queued_then_nothing_and_refuses_what_comes() -> None:
    queue, asked = made(HandClock(), PATIENT), answer()
    offer(queue, asked)
    queue.drain()
    with pytest.raises(NotReady, match="model 'm' version 1 is not at ready state: it is being unloaded"):
        queue.offer(answer().pending)
    assert of(queue.take(), asked)
    assert queue.take() == ()


def test_two_workers_take_from_one_queue() -> None:
    """Nobody computes what the other one has, and a request finds whoever is free."""
    clock = HandClock()
    queue = made(clock, ALONE, workers=2)
    takers = [beside(queue.take) for _ in range(2)]
    for _ in range(2):
        clock.waits.get(timeout=10)
    asked = [answer(), answer(), answer()]
    offer(queue, *asked)
    taken = [taker.get(timeout=10)[0].pending for taker in takers]
    assert {id(pending) for pending in taken} == {id(each.pending) for each in asked[:2]}
    assert of(queue.take(), asked[2])


def test_who_is_passed_over_by_one_worker_is_taken_by_the_other() -> None:
    clock = HandClock()
    queue, first, second = made(clock, PATIENT, workers=2), answer(5), answer(7)
    offer(queue, first, second)
    takers = [beside(queue.take) for _ in range(2)]
    for _ in range(2):
        clock.waits.get(timeout=10)
    queue.hurry()
    taken = [taker.get(timeout=10)[0].pending for taker in takers]
    assert {id(pending) for pending in taken} == {id(first.pending), id(second.pending)}


def test_a_broken_worker_takes_nothing_that_another_one_can_compute() -> None:
    clock = HandClock()
    queue, first, second = made(clock, ALONE, workers=2), answer(), answer()
    mended = queue.breaks()
    leftovers = beside(lambda: queue.take_all(mended))
    clock.waits.get(timeout=10)
    offer(queue, first)
    assert leftovers.get(timeout=10) == ([], mended)  # it has looked, and left it
    assert of(queue.take(), first)
    queue.breaks()
    offer(queue, second)
    assert queue.take_all(mended) == ([second.pending], mended)


def test_a_worker_whose_backend_is_mended_is_told_before_it_takes_anything() -> None:
    queue, asked = made(HandClock()), answer()
    before = queue.breaks()
    offer(queue, asked)
    queue.mend()
    assert queue.take_all(before) == ([], before + 1)
    assert of(queue.take(), asked)


def test_a_broken_worker_ends_when_the_queue_is_drained() -> None:
    queue, asked = made(HandClock()), answer()
    mended = queue.breaks()
    offer(queue, asked)
    queue.drain()
    assert queue.take_all(mended) == ([asked.pending], mended)
    assert queue.take_all(mended) is None


def test_what_waits_for_a_broken_worker_may_still_go() -> None:
    queue, gone, patient = made(HandClock()), answer(), answer()
    mended = queue.breaks()
    offer(queue, gone, patient)
    gone.pending.cancel()
    assert queue.take_all(mended) == ([patient.pending], mended)
    assert isinstance(gone.wait(), Cancelled)


def test_after_the_last_worker_nobody_is_left_waiting() -> None:
    queue, asked = made(HandClock(), workers=2), answer()
    offer(queue, asked)
    queue.leave(broken=False)
    assert queue.depth == 1, "the other worker can compute it"
    queue.leave(broken=False)
    error = asked.wait()
    assert isinstance(error, ComputeFailed)
    assert str(error) == "the worker of model 'm' version 1 has ended; the server's log says why"
    with pytest.raises(NotReady, match="its worker has ended"):
        queue.offer(answer().pending)


@pytest.mark.parametrize(
    ("finishes", "cancelled"),
    [
        (lambda queue: queue.take(), True),
        (lambda queue: queue.take_all(queue.breaks()), True),
        (lambda queue: queue.leave(broken=False), False),
    ],
    ids=["take", "take_all", "leave"],
)
def test_nobodys_request_is_finished_while_the_lock_is_held(
    finishes: Callable[[Queue], object], cancelled: bool
) -> None:
    """Finishing may take its time, and may lead back to the queue."""
    queue = made(HandClock())
    asking = Asking(queue.look_again, decoded_ns=0)
    offer(queue, asking)
    if cancelled:
        asking.pending.cancel()
        queue.drain()
    finishes(queue)
    assert asking.wait() is not None


def test_what_nobody_waits_for_comes_behind_every_request() -> None:
    queue = made(HandClock())
    row, request = answer(), answer()
    assert queue.offer_behind(row.pending)
    offer(queue, request)
    assert queue.depth == 1, "it is no request"
    assert of(queue.take(), request)
    assert of(queue.take(), row)


def test_what_nobody_waits_for_is_computed_after_a_second_although_requests_wait() -> None:
    clock = HandClock()
    queue = made(clock)
    row, request = answer(), answer()
    queue.offer_behind(row.pending)
    offer(queue, request)
    clock.passes(1.0)
    assert of(queue.take(), row)
    assert of(queue.take(), request)


def test_who_is_woken_for_a_request_and_takes_what_nobody_waits_for_wakes_another() -> None:
    clock = HandClock()
    queue = made(clock, BatchPolicy(max_rows=2, max_delay_ns=HOUR_NS), workers=2)
    row, *requests = answer(), answer(), answer()
    offer(queue, requests[0])
    takers = [beside(queue.take) for _ in range(2)]
    for _ in takers:
        clock.somebody_waits(3600)
    queue.offer_behind(row.pending)
    clock.somebody_waits(3600)
    clock.now += 1_000_000_000  # which wakes nobody
    offer(queue, requests[1])
    taken = [taker.get(timeout=10) for taker in takers]
    assert sorted(map(len, taken)) == [1, 2]
    assert any(of(pieces, *requests) for pieces in taken)


def test_there_is_little_room_behind_the_requests() -> None:
    queue = made(HandClock())
    assert [queue.offer_behind(answer().pending) for _ in range(5)] == [True] * 4 + [False]


def test_a_queue_that_is_drained_drops_what_nobody_waits_for() -> None:
    queue = made(HandClock())
    queue.offer_behind(answer().pending)
    queue.drain()
    assert not queue.offer_behind(answer().pending)
    assert queue.take() == ()


def test_parted_requests_are_taken_one_by_one() -> None:
    queue = made(HandClock())
    first, second = answer(), answer()
    offer(queue, first, second)
    queue.part()
    assert of(queue.take(), first)
    assert of(queue.take(), second)
