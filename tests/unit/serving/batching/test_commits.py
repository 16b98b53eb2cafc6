"""Steps are answered when they are written; what cannot be written was not taken; what was written goes on elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from serving.batching.commits import Commits
from serving.batching.lanes import Lanes
from serving.sequences import counts as why
from serving.sequences.epochs import Epochs
from serving.sequences.policy import CARRY_SAME_SHAPES, SequencePolicy
from tests.simulation.virtual import VirtualClock
from tests.support.fake_disk import FakeDisk
from tests.support.sequence_desk import POLICY, A, B, C, Desk, told

MS, HOUR = 0.001, 3600.0
Test = Callable[["Life"], None]


class Life:
    """One life of a server with a store: lanes, a version of them, and the disk that outlives it."""

    def __init__(
        self,
        clock: VirtualClock,
        disk: FakeDisk,
        policy: SequencePolicy = POLICY,
        version: str = "1",
        before: Life | None = None,
    ) -> None:
        self.lives: list[Life] = before.lives if before else []
        self.lives.append(self)
        self.clock = clock
        self.disk = disk
        self.commits = Commits(disk, clock)
        self.lanes = Lanes("m", Epochs(max(100, self.commits.first_epoch)), clock, self.commits)
        self.desk = Desk(clock, self.lanes, policy, version)
        self.lanes.recover()

    def settle(self) -> None:
        """Lets the store's thread do what it can."""
        self.clock.sleep(MS)

    def all(self) -> None:
        """Computes, writes and answers everything."""
        self.settle()
        while self.desk.queued:
            self.desk.compute()
            self.settle()

    def end(self) -> None:
        """Nothing is left of it."""
        self.settle()
        assert not self.lanes._lanes
        assert not self.lanes._uncommitted
        assert not self.lanes._reading
        for home in list(self.lanes._homes):
            assert home.held == 0
            assert home._pool.used == home.live
            self.lanes.drain(home, 0)
        assert self.lanes._held_bytes == 0
        self.clock.sleep(HOUR)
        self.commits.close()
        assert self.disk.closed

    def after_a_crash(self, policy: SequencePolicy = POLICY, version: str = "1") -> Life:
        """The next life, on what the disk holds now."""
        return Life(self.clock, self.disk.copy(), policy, version, self)


def life_test(test: Test) -> Callable[[], None]:
    """Runs it in virtual time, with the first life."""

    def run() -> None:
        clock = VirtualClock(0)

        def main() -> None:
            life = Life(clock, FakeDisk())
            life.settle()
            test(life)
            for each in life.lives:
                each.end()

        clock.run(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@life_test
def test_an_answer_leaves_when_it_is_written(life: Life) -> None:
    """The next step of the sequence, which came meanwhile, is computed before; the answers leave in order."""
    asked, seen = life.desk.steps(A, 0, 1), []
    life.settle()
    life.disk.before_write = lambda: seen.append(told(asked))
    life.desk.compute()
    assert life.desk.compute() == [A]  # on a head that is not written
    assert told(asked) == [None, None]
    life.all()
    assert told(asked) == [1, 2]
    assert seen == [[None, None]]


@life_test
def test_what_cannot_be_written_was_not_taken(life: Life) -> None:
    first = life.desk.steps(A, 0, 1)
    life.all()
    life.disk.full = True
    lost = [life.desk.ask(A, number=2), life.desk.ask(A, number=3), life.desk.ask(A, number=4)]
    life.settle()
    life.desk.compute()
    life.desk.compute()  # on what is about to be lost, and 4 waits behind it
    life.all()
    assert told(first) == [1, 2]
    assert told(lost) == ["StoreFailed", "StoreFailed", "StoreFailed"]
    life.disk.full = False
    again = [life.desk.ask(A, number=2), life.desk.ask(A, number=3)]
    life.all()
    assert told(again) == [3, 4]


@life_test
def test_what_is_computed_meanwhile_is_lost_too(life: Life) -> None:
    """And what waits behind it is broken off."""
    life.desk.steps(A, 0, 1)
    life.all()
    life.disk.full = True
    second = life.desk.ask(A, number=2)
    life.desk.compute()
    third, fourth = life.desk.ask(A, number=3), life.desk.ask(A, number=4)
    assert len(life.desk.queued) == 1  # the third is with whoever computes
    life.settle()
    assert (second.told, third.told, fourth.told) == ("StoreFailed", None, None)
    life.disk.full = False
    life.all()
    assert (third.told, fourth.told) == ("StoreFailed", "BrokenOff")
    again = [life.desk.ask(A, number=number) for number in (2, 3, 4)]
    life.all()
    assert told(again) == [3, 4, 5]


@life_test
def test_what_comes_back_while_the_store_is_read_leaves_no_lane(life: Life) -> None:
    """Else its version would wait for ever for steps that nobody has sent."""
    life.desk.steps(A, 0, 1)
    life.all()
    life.disk.full = True
    asked = [life.desk.ask(A, number=2), life.desk.ask(A, number=3)]
    life.disk.before_read = life.desk.all  # the last one, on what is lost
    life.desk.compute()
    life.all()
    assert told(asked) == ["StoreFailed", "StoreFailed"]
    assert not life.lanes._lanes


@life_test
def test_a_start_that_cannot_be_written_begins_nothing(life: Life) -> None:
    life.disk.full = True
    asked = [*life.desk.steps(A, 0, 1), *life.desk.steps(B, None)]
    life.settle()
    life.desk.compute()
    life.all()
    assert told(asked) == ["StoreFailed", "StoreFailed", "StoreFailed"]
    assert life.desk.home.live == 0
    life.disk.full = False
    gone = life.desk.ask(A, number=1)
    again = life.desk.steps(A, 0, 1)
    life.all()
    assert (gone.told, told(again)) == ("InvalidRequest", [1, 2])


@life_test
def test_a_start_anew_that_cannot_be_written_leaves_the_old_one(life: Life) -> None:
    first = life.desk.steps(A, 0, 1, 2)
    life.all()
    life.disk.full = True
    anew = life.desk.ask(A, start=True, number=0, nonce=b"other")
    life.all()
    life.disk.full = False
    on = life.desk.ask(A, number=3, epoch_said=first[0].epoch)
    life.all()
    assert (anew.told, on.told) == ("StoreFailed", 4)


@life_test
def test_a_repeat_waits_for_what_it_repeats(life: Life) -> None:
    (start,) = life.desk.steps(A, 0)
    life.settle()
    life.disk.full = True
    repeat = life.desk.ask(A, start=True, number=0)
    life.desk.compute()
    life.settle()
    assert (start.told, repeat.told) == ("StoreFailed", "StoreFailed")
    life.disk.full = False
    again = [life.desk.ask(A, start=True, number=0), life.desk.ask(A, start=True, number=0)]
    life.all()
    assert told(again) == [1, 1]
    assert again[0].epoch == again[1].epoch


@life_test
def test_without_numbers_a_lost_step_leaves_a_hole(life: Life) -> None:
    life.desk.steps(A, None)
    life.all()
    life.disk.full = True
    lost = life.desk.ask(A)
    life.all()
    life.disk.full = False
    after = [life.desk.ask(A), life.desk.ask(A)]
    life.all()
    assert (lost.told, told(after)) == ("StoreFailed", ["BrokenOff", 2])


@life_test
def test_sequences_go_on_in_the_next_life(life: Life) -> None:
    numbered, plain = life.desk.steps(A, 0, 1, 2), life.desk.steps(("me", "meter-7"), None, None)
    life.all()
    after = life.after_a_crash()
    asked = [
        after.desk.ask(A, number=2),  # was answered
        after.desk.ask(A, number=3, epoch_said=numbered[0].epoch),
        after.desk.ask(("me", "meter-7")),
        after.desk.ask(("", "meter-7")),  # somebody else's
    ]
    after.all()
    assert told(asked) == [3, 4, 3, "InvalidRequest"]
    assert asked[0].epoch == numbered[0].epoch
    assert asked[2].epoch == plain[0].epoch
    assert after.desk.home.counts.restored == 2


@life_test
def test_what_was_not_answered_was_not_taken(life: Life) -> None:
    """The process ends between computing and writing: the disk holds what was answered."""
    life.desk.steps(A, 0, 1)
    life.all()
    life.desk.ask(A, number=2)
    life.settle()
    held = life.disk.copy()
    life.desk.compute()
    after = Life(life.clock, held, before=life)
    again = after.desk.ask(A, number=2)
    after.all()
    life.all()
    assert again.told == 3


@life_test
def test_epochs_never_fall(life: Life) -> None:
    """Even where the clock was set back; here each life would begin at 100."""
    epochs = []
    for _ in range(3):
        (start,) = life.desk.steps(A, 0)
        life.all()
        epochs.append(start.epoch)
        life.desk.ask(A, number=1, end=True)
        life.all()
        life = life.after_a_crash(dataclasses.replace(POLICY, tombstone_ns=0))
    assert epochs == sorted(set(epochs))


@life_test
def test_an_end_is_answered_again_and_forgotten_in_time(life: Life) -> None:
    life.desk.steps(A, 0)
    life.desk.ask(A, number=1, end=True)
    life.all()
    after = life.after_a_crash()
    again = after.desk.ask(A, number=1, end=True)
    after.all()
    assert again.told == 2
    after.clock.sleep(61)
    after.all()
    assert not after.disk.rows


@life_test
def test_time_that_the_server_was_down_counts(life: Life) -> None:
    policy = dataclasses.replace(POLICY, idle_ns=10 * 10**9)
    life.desk.steps(A, 0)
    life.all()
    life.clock.sleep(6)
    young = life.after_a_crash(policy)
    young.settle()
    assert young.desk.home.live == 1
    young.clock.sleep(3.5)
    assert young.desk.home.live == 1
    young.clock.sleep(2)
    assert young.desk.home.live == 0
    old = life.after_a_crash(policy)
    late = old.desk.ask(A, number=1)
    old.all()
    assert (late.told, "it was idle for longer" in late.told_of) == ("InvalidRequest", True)
    assert not old.disk.rows


@life_test
def test_a_sequence_of_another_version_goes_on_as_the_rule_says(life: Life) -> None:
    life.desk.steps(A, 0, 1)
    life.all()
    refused = life.after_a_crash(version="2")
    asked = refused.desk.ask(A, number=2)
    refused.all()
    assert (asked.told, "another version" in asked.told_of) == ("InvalidRequest", True)
    assert refused.disk.rows  # until that version comes back
    carried = life.after_a_crash(dataclasses.replace(POLICY, on_removal=CARRY_SAME_SHAPES), version="2")
    asked = carried.desk.ask(A, number=2)
    carried.all()
    assert asked.told == 3


@life_test
def test_the_version_of_a_sequence_is_opened_later(life: Life) -> None:
    life.desk.steps(A, 0, 1)
    life.all()
    later = life.after_a_crash(version="2")
    later.settle()
    first = Desk(later.clock, later.lanes, POLICY, "1")
    later.lanes.recover()
    later.settle()
    assert (first.home.live, later.desk.home.live) == (1, 0)


@life_test
def test_what_was_torn_is_refused_by_name(life: Life) -> None:
    for key in (A, B):
        life.desk.steps(key, 0, 1)
    life.all()
    torn = next(iter(life.disk.rows))
    life.disk.rows[torn] = life.disk.rows[torn][:-1]
    after = life.after_a_crash()
    after.settle()
    asked = [after.desk.ask(key, number=2) for key in (A, B)]
    after.all()
    assert sorted(map(str, told(asked))) == ["3.0", "InvalidRequest"]
    (refused,) = [each for each in asked if each.told != 3]
    assert "what the store holds of it is damaged" in refused.told_of
    assert after.commits.counts.damaged == 1
    anew = after.desk.ask(refused.step.key, start=True, number=0)
    after.all()
    assert anew.told == 1


@life_test
def test_where_the_last_writes_may_be_missing_a_sequence_without_numbers_does_not_just_go_on(life: Life) -> None:
    life.desk.steps(A, None, None)
    life.desk.steps(B, 0, 1)
    life.all()
    disk = life.disk.copy()
    disk.lost = "its log was cut off"
    after = Life(life.clock, disk, before=life)
    asked = [after.desk.ask(A), after.desk.ask(A), after.desk.ask(B, number=2)]
    after.all()
    assert told(asked) == ["BrokenOff", 3, 3]


@life_test
def test_nothing_new_begins_before_the_store_is_read(life: Life) -> None:
    """Else there might be no room for what it holds; a step of such a sequence is looked up at once."""
    for key in (A, B):
        life.desk.steps(key, 0)
    life.all()
    after = life.after_a_crash()  # with room for two
    new, old = after.desk.ask(C, start=True, number=0), after.desk.ask(B, number=1)
    after.all()
    assert (new.told, old.told) == (None, 2)
    after.desk.ask(A, number=1, end=True)
    after.all()
    assert new.told == 1


@life_test
def test_what_ends_without_an_answer_is_written_as_soon_as_it_can_be(life: Life) -> None:
    life.lanes.follow(life.desk.home, dataclasses.replace(POLICY, idle_ns=10**9))
    life.desk.steps(A, 0)
    life.all()
    life.disk.full = True
    life.clock.sleep(5)
    assert (life.desk.home.live, len(life.disk.rows)) == (0, 1)
    assert life.desk.home.counts.ended[why.IDLE] == 1
    life.disk.full = False
    life.desk.steps(B, 0)
    life.all()
    assert len(life.disk.rows) == 1
    assert life.after_a_crash().desk.home.counts.ended[why.IDLE] == 0


@life_test
def test_a_start_in_another_version_is_what_the_store_holds(life: Life) -> None:
    life.desk.steps(A, 0, 1)
    life.all()
    second = Desk(life.clock, life.lanes, POLICY, "2")
    second.ask(A, start=True, number=0, nonce=b"anew")
    life.settle()
    second.compute()
    life.settle()
    after = life.after_a_crash(version="2")
    on = after.desk.ask(A, number=1)
    after.all()
    assert on.told == 2


@life_test
def test_what_is_owed_stays_owed_when_its_sequence_is_read(life: Life) -> None:
    """Else one that has ended would rise again."""
    life.lanes.follow(life.desk.home, dataclasses.replace(POLICY, idle_ns=10**9))
    life.desk.steps(A, 0)
    life.all()
    life.disk.full = True
    life.clock.sleep(5)
    refused = life.desk.ask(A, start=True, number=0, nonce=b"anew")
    life.all()
    life.disk.full = False
    life.desk.steps(B, 0)
    life.all()
    assert refused.told == "StoreFailed"
    assert len(life.disk.rows) == 1


@life_test
def test_what_cannot_be_read_back_is_gone(life: Life) -> None:
    life.desk.steps(A, 0)
    life.all()
    life.disk.full = life.disk.unreadable = True
    life.desk.ask(A, number=1)
    life.all()
    life.disk.full = life.disk.unreadable = False
    asked = life.desk.ask(A, number=1)
    life.all()
    assert (asked.told, "the store could neither write nor read it" in asked.told_of) == ("InvalidRequest", True)
