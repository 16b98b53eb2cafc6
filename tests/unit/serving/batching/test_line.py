"""The order in which requests are served, who is put behind or refused, and when nobody else finds room."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from serving.batching.line import END_OF_TIME, Line
from serving.batching.pending import Pending, Turn
from serving.batching.policy import BatchPolicy, QueuePolicy
from serving.errors import Cancelled, DeadlineExceeded, TimedOut
from tests.support.gated import Answer
from tests.support.threads import HandClock

MS = 1_000_000
DELAY = QueuePolicy(timeout_ns=5 * MS, delays=True)
REJECT = QueuePolicy(timeout_ns=5 * MS)
THREE = BatchPolicy(levels=3, default_level=2)


def made(policy: BatchPolicy | None = None) -> Line:
    return Line("model 'm' version 1", policy or BatchPolicy(), HandClock())


def request(
    priority: int = 0, timeout_ms: int = 0, size: int = 0, came_ms: int = 0, deadline_ms: int | None = None
) -> Pending:
    deadline_ns = None if deadline_ms is None else deadline_ms * MS
    pending = Answer(0, decoded_ns=came_ms * MS, deadline_ns=deadline_ns).pending
    pending.turn, pending.size = Turn(priority, timeout_ms * MS), size
    return pending


def in_line(line: Line, *requests: Pending) -> Line:
    for each in requests:
        assert line.add(each) is None
    return line


@pytest.mark.parametrize(
    ("priorities", "served"),
    [
        ((0, 0, 0), (0, 1, 2)),
        ((3, 1, 2, 1), (1, 3, 2, 0)),
        ((0, 2, 4, 3, 2**64 - 1), (0, 1, 2, 4, 3)),  # none, and what is no level, have the default level 2
        ((1, 3, 1, 3, 1), (0, 2, 4, 1, 3)),
    ],
)
def test_the_lowest_level_is_served_first_and_within_one_who_came_first(
    priorities: Sequence[int], served: Sequence[int]
) -> None:
    requests = [request(priority) for priority in priorities]
    assert in_line(made(THREE), *requests).waiting == [requests[number] for number in served]


def test_who_has_waited_too_long_goes_behind_its_level_under_delay() -> None:
    line = made(BatchPolicy(levels=2, default_level=2, level_queues={1: DELAY}))
    first, second, other, third = request(1), request(1, came_ms=1), request(2), request(1, came_ms=2)
    in_line(line, first, second, other, third)
    assert line.next_end_ns == 5 * MS
    assert line.remove_hopeless(5 * MS - 1) == []
    assert line.waiting == [first, second, third, other]
    assert line.remove_hopeless(6 * MS) == []
    assert line.waiting == [third, first, second, other]
    late = request(1, came_ms=3)
    line.add(late)
    assert line.waiting == [third, late, first, second, other]
    assert line.remove_hopeless(100 * MS) == []
    assert (line.waiting, line.next_end_ns) == ([first, second, third, late, other], END_OF_TIME)
    line.remove([first, late])
    assert line.waiting == [second, third, other]


def test_who_has_waited_too_long_is_refused_under_reject() -> None:
    line = made(BatchPolicy(queue=REJECT))
    late, waits = request(size=3), request(came_ms=1, size=4)
    in_line(line, late, waits)
    ((ended, why),) = line.remove_hopeless(5 * MS)
    assert (ended, line.waiting, line.size, line.next_end_ns) == (late, [waits], 4, 6 * MS)
    assert isinstance(why, TimedOut)
    assert str(why) == (
        "Request timeout expired: waited 5.0 ms for model 'm' version 1, and was to wait no more than 5.0 ms; nothing was "
        "computed"
    )


@pytest.mark.parametrize(
    ("policy", "asked_ms", "ends_ms"),
    [
        (QueuePolicy(timeout_ns=5 * MS, allows_less=True), 3, 3),
        (QueuePolicy(timeout_ns=5 * MS, allows_less=True), 9, 5),
        (QueuePolicy(timeout_ns=5 * MS, allows_less=True), 0, 5),
        (QueuePolicy(timeout_ns=5 * MS), 3, 5),
        (QueuePolicy(allows_less=True), 3, 3),
        (QueuePolicy(allows_less=True), 0, None),
        (QueuePolicy(), 3, None),
    ],
)
def test_a_request_may_wait_less_where_its_policy_allows_it(
    policy: QueuePolicy, asked_ms: int, ends_ms: int | None
) -> None:
    line = in_line(made(BatchPolicy(queue=policy)), request(timeout_ms=asked_ms))
    assert line.next_end_ns == (END_OF_TIME if ends_ms is None else ends_ms * MS)


def test_the_clients_own_time_goes_before_that_of_the_policy() -> None:
    line = made(BatchPolicy(queue=REJECT))
    gone, both, patient = request(), request(deadline_ms=4), request(came_ms=9)
    in_line(line, gone, both, patient)
    gone.cancelled = True
    line.told_that_one_has_gone()
    assert [type(why) for _, why in line.remove_hopeless(7 * MS)] == [Cancelled, DeadlineExceeded]
    assert line.waiting == [patient]


def test_a_client_that_went_before_it_came_in_is_looked_for_at_once() -> None:
    line, gone = made(), request()
    gone.cancelled = True
    line.add(gone)
    assert line.next_end_ns == 0
    assert [type(why) for _, why in line.remove_hopeless(0)] == [Cancelled]


def test_taking_a_few_from_the_front_looks_at_nobody_behind() -> None:
    """What waits may be very long."""

    class Watched(list[Pending]):
        looked_at = 0

        def __getitem__(self, place: object) -> object:  # type: ignore[override]
            if isinstance(place, int):
                Watched.looked_at += 1
            return super().__getitem__(place)  # type: ignore[index]

    requests = [request(size=1) for _ in range(1000)]
    line = in_line(made(), *requests)
    line.waiting = Watched(line.waiting)
    line.remove([requests[0], requests[2], requests[5]])
    assert line.waiting == [requests[1], *requests[3:5], *requests[6:]]
    assert (Watched.looked_at <= 10, line.size) == (True, 997)
    line.remove(requests[3:5])
    assert line.waiting == [requests[1], *requests[6:]]


@pytest.mark.parametrize(
    ("policy", "there", "comes", "why"),
    [
        (BatchPolicy(queue=QueuePolicy(max_requests=2)), [0, 0], 0, "2 requests wait for model 'm'.*which allows 2;"),
        (BatchPolicy(queue=QueuePolicy(max_requests=2)), [0], 0, ""),
        (
            BatchPolicy(levels=2, level_queues={2: QueuePolicy(max_requests=1)}),
            [2],
            2,
            r"1 requests wait with priority 2 for model 'm'.*allows 1; try again in \d+ ms, or raise max_queue_size in",
        ),
        (BatchPolicy(levels=2, level_queues={2: QueuePolicy(max_requests=1)}), [2], 1, ""),
        (BatchPolicy(level_queues={1: QueuePolicy(max_requests=1)}), [0], 0, "allows 1;"),
        (BatchPolicy(queue=QueuePolicy(max_requests=1, timeout_ns=MS)), [0], 0, "1 requests wait for model"),
        (
            BatchPolicy(max_queue_bytes=20),
            [0, 0],
            0,
            "30 bytes of requests would wait .*, which allows 20; .*max_queue_bytes",
        ),
        (BatchPolicy(max_queue_bytes=5), [], 0, ""),
        (BatchPolicy(max_queue_bytes=5), [0], 0, "20 bytes of requests would wait for .*allows 5"),
    ],
)
def test_when_there_is_no_room(policy: BatchPolicy, there: Sequence[int], comes: int, why: str) -> None:
    line = in_line(made(policy), *[request(priority, size=10) for priority in there])
    full = line.add(request(comes, size=10))
    if not why:
        assert full is None
        return
    assert full
    assert full.retry_ms == 10
    with pytest.raises(type(full), match=f"^Exceeds maximum queue size: .*{why}"):
        raise full


ONE_EACH = BatchPolicy(levels=2, queue=QueuePolicy(max_requests=1))


@pytest.mark.parametrize(
    ("policy", "there", "ahead", "full"),
    [
        (BatchPolicy(queue=QueuePolicy(max_requests=3)), [0], 1, False),
        (BatchPolicy(queue=QueuePolicy(max_requests=3)), [0], 2, True),
        (ONE_EACH, [1], 50, False),  # what comes may be of the other level
        (ONE_EACH, [1, 2], 0, True),
        (BatchPolicy(max_queue_bytes=30), [0], 1, False),
        (BatchPolicy(max_queue_bytes=29), [0], 1, True),
        (BatchPolicy(max_queue_bytes=1), [], 0, False),
        (BatchPolicy(max_queue_bytes=1), [], 1, True),
    ],
)
def test_before_a_request_is_decoded_it_is_known_whether_all_are_refused(
    policy: BatchPolicy, there: Sequence[int], ahead: int, full: bool
) -> None:
    line = in_line(made(policy), *[request(priority, size=10) for priority in there])
    assert (line.full_for_all(ahead, 10 * (ahead + 1)) is not None) == full


def test_room_comes_back_with_whoever_leaves() -> None:
    line = made(BatchPolicy(levels=2, queue=QueuePolicy(max_requests=1), max_queue_bytes=10))
    first = request(1, size=10)
    line.add(first)
    assert line.add(request(1, size=0))
    line.remove([first])
    assert line.add(request(1, size=10)) is None
    assert len(line.remove_all()) == 1
    assert (line.size, line.add(request(1, size=10))) == (0, None)


def test_who_comes_from_a_line_with_levels_has_no_rank_in_one_without() -> None:
    late = request(2)
    in_line(made(BatchPolicy(levels=2, queue=REJECT)), late)
    line = in_line(made(), late)
    assert (late.rank, line.next_end_ns, line.remove_hopeless(100 * MS)) == (0, END_OF_TIME, [])
