"""Steps of one sequence behind each other, and what becomes of those behind one that was not taken. The queue is a double."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from serving.batching.in_lane import Entering, InLane
from serving.batching.lanes import Lanes
from serving.errors import ComputeFailed, ServingError
from serving.sequences import counts as why
from serving.sequences.epochs import Epochs
from tests.simulation.virtual import VirtualClock
from tests.support.sequence_desk import POLICY, A, Asks, B, C, D, Desk, told

HOUR = 3600.0


Test = Callable[[VirtualClock, Lanes, Desk], None]


def lanes_test(test: Test) -> Callable[[], None]:
    """Runs it in virtual time, with lanes and a version of them; nothing may be left in them at the end."""

    def run() -> None:
        clock = VirtualClock(0)

        def main() -> None:
            lanes = Lanes("m", Epochs(100), clock)
            desk = Desk(clock, lanes)
            test(clock, lanes, desk)
            clock.sleep(2 * HOUR)  # for who looks for idle ones
            assert not lanes._lanes
            assert (desk.home.held, lanes._held_bytes) == (0, 0)
            assert desk.home._pool.used == desk.home.live

        clock.run(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@lanes_test
def test_of_each_sequence_one_step_is_in_the_queue(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    asked = [*desk.steps(A, None, None, None), *desk.steps(B, None, None)]
    assert [desk.compute() for _ in range(3)] == [[A, B], [A, B], [A]]
    assert told(asked) == [1, 2, 3, 1, 2]
    assert [each.epoch for each in asked] == [100, 100, 100, 101, 101]


@pytest.mark.parametrize(
    ("numbers", "failing", "outcome"),
    [
        ((None, None, None, None), 0, ["ComputeFailed", "BrokenOff", "BrokenOff", "BrokenOff"]),
        ((None, None, None, None), 2, [1, 2, "ComputeFailed", "BrokenOff"]),
        ((0, 1, 2, 3), 1, [1, "ComputeFailed", "BrokenOff", "BrokenOff"]),
        ((0, 1, 2, 1), 1, [1, "ComputeFailed", "BrokenOff", 2]),  # sent again already
        ((0, 1, 2, 1), 2, [1, 2, "ComputeFailed", 2]),  # a repeat of what was taken
        ((0, 1, 2, 2), 2, [1, 2, "ComputeFailed", 3]),
    ],
)
def test_behind_a_step_that_fails_none_goes_on(
    numbers: tuple[int | None, ...], failing: int, outcome: list[object]
) -> None:
    @lanes_test
    def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
        asked = desk.steps(A, *numbers)
        other = desk.steps(B, None, None)
        for _ in range(failing):
            desk.compute()
        desk.fail(A)
        desk.all()
        assert told(asked) == outcome
        assert told(other) == [1, 2], "which has nothing to do with it"
        broken = [each.told_of for each in asked if each.told == "BrokenOff"]
        assert all("of sequence 1 before this one was not taken, so neither is" in each for each in broken)
        assert desk.home.counts.refused[why.EARLIER_FAILED] == len(broken)

    test()


@lanes_test
def test_a_start_goes_on_behind_whatever_has_failed(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    asked = [*desk.steps(A, None, None), *desk.steps(A, None, None)]
    desk.fail(A)
    desk.all()
    assert told(asked) == ["ComputeFailed", "BrokenOff", 1, 2]


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("refused as a request", "BrokenOff"),
        ("cancelled", "Cancelled"),
        ("too late", "DeadlineExceeded"),
        ("numbered, unlike the others", "InvalidRequest"),
        ("numbered, and too late", "DeadlineExceeded"),
        ("no room in the queue", "Overloaded"),
        ("cannot be sent", "ComputeFailed"),
    ],
)
def test_without_numbers_nothing_goes_on_over_a_hole(kind: str, first: str) -> None:
    """The START is being computed; then a step comes that will not be taken, then two that are here before that is known."""

    @lanes_test
    def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
        start = desk.ask(A, start=True)
        hole: list[Asks] = []
        if kind == "refused as a request":
            lanes.broken_off(A)
        elif kind == "no room in the queue":
            desk.most = 1
            hole = [desk.ask(A)]
            desk.most = 100
        else:
            more: dict[str, Any] = {
                "cancelled": {},
                "too late": {"deadline": 1.0},
                "numbered, unlike the others": {"number": 1},
                "numbered, and too late": {"number": 1, "deadline": 1.0},
                "cannot be sent": {"fails": ComputeFailed("it cannot be sent")},
            }[kind]
            hole = [desk.ask(A, **more)]
            hole[0].pending.cancelled = kind == "cancelled"
        behind = [desk.ask(A), desk.ask(A)]
        clock.sleep(2)
        desk.all()
        assert told([start, *hole, *behind]) == [1, *([first] if hole else []), "BrokenOff", "BrokenOff"]
        assert desk.ask(A).told == "BrokenOff", "the next one is refused once"
        goes_on = desk.ask(A)
        desk.all()
        assert goes_on.told == 2

    test()


@lanes_test
def test_many_holes_say_no_more_than_one(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    desk.steps(A, None)
    for _ in range(1000):
        lanes.broken_off(A)
    assert len(lanes._lanes[A]) == 2
    behind = desk.ask(A)
    desk.all()
    assert behind.told == "BrokenOff"


@lanes_test
def test_with_numbers_a_hole_is_a_gap(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    start = desk.steps(A, 0)
    lanes.broken_off(A)
    behind = [desk.ask(A, number=2), desk.ask(A, number=1), desk.ask(A, number=2)]
    desk.all()
    assert told([*start, *behind]) == [1, "OutOfStep", 2, 3]


@lanes_test
def test_a_step_that_the_queue_refuses_is_a_hole_too(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    start = desk.steps(A, None)
    desk.all()
    desk.most = 0
    assert desk.ask(A).told == "Overloaded"
    desk.most = 100
    assert told([*start, desk.ask(A)]) == [1, "BrokenOff"]


@lanes_test
def test_a_repeat_is_answered_when_its_turn_has_come(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    asked = [*desk.steps(A, 0, 1), desk.ask(A, number=1), desk.ask(A, number=2)]
    desk.compute()
    assert told(asked) == [1, None, None, None]
    desk.compute()
    assert told(asked) == [1, 2, 2, None], "nothing was computed for it"
    desk.compute()
    assert told(asked) == [1, 2, 2, 3]
    assert (desk.home.counts.steps, desk.home.counts.repeats, desk.metrics.in_flight) == (3, 1, 3)


@pytest.mark.parametrize("error", [ComputeFailed("no"), ValueError("no")])
def test_a_repeat_that_cannot_be_sent_fails_alone(error: Exception) -> None:
    @lanes_test
    def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
        asked = [*desk.steps(A, 0), desk.ask(A, number=0, start=True, fails=error), desk.ask(A, number=1)]
        desk.all()
        assert told(asked) == [1, "ComputeFailed", 2]

    test()


@lanes_test
def test_more_unanswered_steps_than_the_window_holds_are_refused(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    asked = desk.steps(A, *range(7))
    assert told(asked) == [None] * 5 + ["Overloaded"] * 2
    assert "5 steps of sequence 1 wait for their answers, and sequence_window is 5" in asked[5].told_of
    desk.all()
    assert told(asked[:5]) == [1, 2, 3, 4, 5]
    assert desk.home.counts.refused[why.TOO_MANY] == 2


@lanes_test
def test_who_answers_and_fails_leaves_nobody_behind(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    class Raises(Asks):
        @staticmethod
        def finish_all(requesters: Sequence[Asks]) -> None:
            Asks.finish_all(requesters)
            raise OSError("the edge has failed")

    start = Raises(clock, A, None, None, start=True)
    lanes.enter_all([Entering(start.pending, start.step, desk)])
    behind = desk.ask(A)
    with pytest.raises(OSError, match="the edge has failed"):
        desk.compute()
    desk.compute()
    assert told([start, behind]) == [1, 2]


class TestAFullHouse:
    """Two sequences live, and more are to begin."""

    @staticmethod
    def full(desk: Desk) -> None:
        desk.steps(A, None)
        desk.steps(B, None)
        desk.all()

    def test_a_start_waits_for_an_end_while_others_go_on(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            self.full(desk)
            waits = [*desk.steps(C, None, None), *desk.steps(D, None)]
            goes_on = desk.ask(A)
            desk.all()
            assert (goes_on.told, told(waits)) == (2, [None] * 3)
            desk.ask(B, end=True)
            desk.all()
            assert told(waits) == [1, 2, None], "the first that waits begins"
            desk.ask(A, end=True)
            desk.all()
            assert told(waits) == [1, 2, 1]

        test()

    def test_those_that_wait_take_no_room_in_the_queue_from_those_that_live(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            self.full(desk)
            desk.most = 4
            waits = [desk.ask(("", 10 + n), start=True) for n in range(5)]
            assert told(waits) == [None] * 4 + ["Overloaded"], "as many as the queue may have"
            steps = [desk.ask(A) for _ in range(3)]
            desk.all()
            assert told(steps) == [2, 3, 4]
            desk.ask(A, end=True)
            desk.ask(B, end=True)
            desk.all()
            for n in range(2, 4):
                desk.ask(("", 10 + n - 2), end=True)
                desk.all()
            assert told(waits)[:4] == [1] * 4

        test()

    @pytest.mark.parametrize(("policy_s", "asked_s", "waits_s"), [(3, 0, 3), (0, 2, 2), (3, 2, 2), (2, 3, 2)], ids=str)
    def test_it_waits_no_longer_than_allowed_and_asked_for(
        self, policy_s: float, asked_s: float, waits_s: float
    ) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            desk.home.policy = dataclasses.replace(POLICY, start_timeout_ns=int(policy_s * 1e9))
            self.full(desk)
            start, step = desk.ask(C, start=True, patience=asked_s), desk.ask(C)
            clock.sleep(waits_s - 0.001)
            assert start.told is None
            clock.sleep(0.002)
            assert told([start, step]) == ["TimedOut", "BrokenOff"]
            assert "Request timeout expired: waited " in start.told_of
            assert "2 live, which are all that max_sequences (2)" in start.told_of

        test()

    def test_who_has_gone_does_not_wait(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            self.full(desk)
            gone, late = desk.ask(C, start=True), desk.ask(D, start=True, deadline=clock.now_ns() / 1e9 + 1)
            gone.pending.cancel()
            assert told([gone, late]) == ["Cancelled", None]
            clock.sleep(1.1)
            assert late.told == "DeadlineExceeded"

        test()

    def test_no_more_wait_than_the_queue_may_hold(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            self.full(desk)
            desk.most = 1
            waits, refused = desk.ask(C, start=True), desk.ask(D, start=True)
            assert told([waits, refused]) == [None, "Overloaded"]
            assert "no new sequence of model 'm' version 1 can begin: 2 live" in refused.told_of
            desk.ask(A, end=True)
            desk.all()
            assert waits.told == 1

        test()

    def test_it_begins_when_another_one_has_been_idle_for_long_enough(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            desk.home.policy = dataclasses.replace(POLICY, evicts=True, min_idle_ns=10**9)
            self.full(desk)
            clock.sleep(0.5)
            desk.ask(A)
            desk.all()
            start = desk.ask(C, start=True)
            assert not desk.queued, "nobody may go yet"
            clock.sleep(0.6)
            desk.all()
            assert start.told == 1
            assert "it was evicted" in desk.ask(B).told_of

        test()

    def test_it_begins_when_another_one_has_expired(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            desk.home.policy = dataclasses.replace(POLICY, idle_ns=10**9)
            self.full(desk)
            start = desk.ask(C, start=True)
            clock.sleep(3)
            desk.all()
            assert start.told == 1

        test()

    def test_who_waits_is_refused_when_the_server_leaves(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            self.full(desk)
            waits = desk.steps(C, None, None)
            lanes.refuse_starts()
            assert told(waits) == ["NotReady", "BrokenOff"]
            assert desk.ask(D, start=True).told == "NotReady"
            goes_on = desk.ask(A)
            desk.all()
            assert goes_on.told == 2

        test()


class TestAVersionThatGoes:
    def test_it_is_waited_for_until_its_sequences_have_ended(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            desk.steps(A, None)
            desk.all()
            drained = clock.start(lambda: lanes.drain(desk.home, 60), "drain")
            clock.sleep(1)
            goes_on, ends = desk.ask(A), desk.ask(A, end=True)
            assert drained.is_alive()
            desk.all()
            drained.join(1)
            assert not drained.is_alive()
            assert told([goes_on, ends]) == [2, 3]
            assert lanes._homes == []

        test()

    @pytest.mark.parametrize("seconds", [0, 5])
    def test_what_is_left_is_ended_and_the_reason_is_known_afterwards(self, seconds: float) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            other = Desk(clock, lanes, version="2")
            desk.steps(A, None)
            desk.steps(B, None)
            desk.all()
            in_queue, behind = desk.ask(B), desk.ask(B)
            drained = clock.start(lambda: lanes.drain(desk.home, seconds), "drain")
            clock.sleep(seconds + 0.1)
            desk.all()
            drained.join(1)
            assert not drained.is_alive()
            assert told([in_queue, behind]) == [2, "NotReady"], "what was begun is answered"
            assert desk.home.counts.ended[why.REMOVED] == 2
            assert "its version of the model has gone" in other.ask(A).told_of
            assert desk.ask(A, start=True).told == "NotReady", "who had found it before comes too late"

        test()

    def test_who_waits_for_room_in_it_is_refused(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            TestAFullHouse.full(desk)
            waits = desk.ask(C, start=True)
            drained = clock.start(lambda: lanes.drain(desk.home, 5), "drain")
            clock.sleep(1)
            assert "no sequence begins in it any more: send the START again" in waits.told_of
            assert desk.ask(D, start=True).told == "NotReady"
            drained.join()

        test()

    def test_it_is_through_when_the_last_has_expired(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            desk.home.policy = dataclasses.replace(POLICY, idle_ns=10**9)
            desk.steps(A, None)
            desk.all()
            began_ns = clock.now_ns()
            lanes.drain(desk.home, 60)
            assert clock.now_ns() - began_ns < 5e9

        test()

    def test_its_sequences_are_carried_over_each_when_it_has_no_step_on_its_way(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            other = Desk(clock, lanes, version="2")
            desk.steps(A, None, None)
            desk.steps(B, 0)
            desk.all()
            last = desk.ask(A)
            lanes.carry(desk.home, other.home)
            assert lanes.home_of(A) is desk.home
            assert lanes.home_of(B) is other.home
            desk.all()
            assert lanes.home_of(A) is other.home
            goes_on = [other.ask(A), other.ask(B, number=1), other.ask(B, number=0, start=True)]
            other.all()
            assert told([last, *goes_on]) == [3, 4, 2, 1]
            lanes.drain(desk.home, 60)

        test()

    def test_a_step_that_found_it_before_is_computed_there_and_it_goes_over_again(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            other = Desk(clock, lanes, version="2")
            desk.steps(A, None)
            desk.all()
            lanes.carry(desk.home, other.home)
            assert other.home.knows(A)
            late = desk.ask(A)
            assert desk.home.knows(A)
            desk.all()
            assert late.told == 2
            assert other.home.knows(A)
            last = other.ask(A)
            other.all()
            assert last.told == 3

        test()

    def test_a_step_that_found_a_version_which_has_gone_is_sent_again(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            other = Desk(clock, lanes, version="2")
            desk.steps(A, None)
            desk.all()
            lanes.carry(desk.home, other.home)
            lanes.drain(desk.home, 0)
            late = desk.ask(A)
            assert late.told == "NotReady"
            assert "has just gone over from model 'm' version 1 to another version: send the step again" in late.told_of
            assert other.ask(A).told == "BrokenOff", "nothing goes on over it"
            again = other.ask(A)
            other.all()
            assert again.told == 2

        test()

    def test_it_is_carried_to_where_the_others_have_gone_since(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            second, third = (Desk(clock, lanes, version=version) for version in ("2", "3"))
            desk.steps(A, None)
            lanes.carry(desk.home, second.home)
            lanes.carry(second.home, third.home)
            lanes.drain(second.home, 0)
            desk.all()
            goes_on = third.ask(A)
            third.all()
            assert goes_on.told == 2

        test()

    def test_where_there_is_no_room_for_it_it_stays_and_is_drained(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            other = Desk(clock, lanes, dataclasses.replace(POLICY, max_sequences=1), "2")
            desk.steps(A, None)
            desk.all()
            other.steps(B, None)
            other.all()
            lanes.carry(desk.home, other.home)
            assert desk.home.knows(A)
            goes_on = desk.ask(A)
            desk.all()
            assert goes_on.told == 2
            lanes.drain(desk.home, 0)
            assert desk.home.counts.ended[why.REMOVED] == 1

        test()

    def test_where_what_it_was_to_be_carried_to_has_gone_it_ends_and_says_so(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            other = Desk(clock, lanes, dataclasses.replace(POLICY, max_sequences=1), "2")
            desk.steps(A, None)
            lanes.carry(desk.home, other.home)
            lanes.drain(other.home, 0)
            desk.all()
            assert desk.home.counts.ended[why.REMOVED] == 1
            assert "its version of the model has gone" in Desk(clock, lanes, version="3").ask(A).told_of

        test()

    def test_of_two_versions_a_start_in_one_ends_the_sequence_in_the_other(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            other = Desk(clock, lanes, version="2")
            desk.steps(A, None)
            desk.all()
            other.steps(A, None)
            other.all()
            assert lanes.home_of(A) is other.home
            assert (desk.home.live, desk.home.counts.ended[why.RESTARTED]) == (0, 1)

        test()

    def test_a_start_that_is_sent_again_is_a_repeat_wherever_it_leads(self) -> None:
        @lanes_test
        def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
            other = Desk(clock, lanes, version="2")
            start = desk.steps(A, 0, nonce=b"n")
            desk.all()
            again = other.steps(A, 0, nonce=b"n")
            assert (told(start), told(again)) == ([1], [1])
            assert (desk.home.live, other.home.live) == (1, 0)
            anew = other.steps(A, 0, nonce=b"another")
            other.all()
            assert (told(anew), anew[0].epoch) == ([1], start[0].epoch + 1)

        test()


@lanes_test
def test_a_step_moves_only_to_who_keeps_its_state(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
    class Lease:
        def __init__(self, model: Desk) -> None:
            self.model = model

    other = Desk(clock, lanes, version="2")
    moves, stays = desk.steps(A, None)[0], desk.steps(B, None)[0]
    same = Lease(desk)
    moves.pending.requester.move(same)
    assert moves.moved == [same]
    with pytest.raises(ServingError, match="was loaded anew, and the state of the sequence was not carried over"):
        stays.pending.requester.move(Lease(other))
    assert not stays.moved
    desk.all()


def test_a_step_that_has_ended_is_kept_by_nobody() -> None:
    """Not even until somebody collects garbage."""

    @lanes_test
    def test(clock: VirtualClock, lanes: Lanes, desk: Desk) -> None:
        gc.collect()
        gc.disable()
        try:
            taken = desk.steps(A, 0, 1, 7)  # the last leaves a gap
            desk.all()
            again = [desk.ask(A, number=1)]
            assert [each.told for each in (*taken, *again)] == [1, 2, "OutOfStep", 2]
            steps = [
                each for each in gc.get_objects() if type(each) is InLane
            ]  # `isinstance` asks what others keep, too
            assert not any(each._lanes is lanes for each in steps)
        finally:
            gc.enable()

    test()
