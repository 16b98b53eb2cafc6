"""What an operator does with sequences, while steps of them come, and with a store that can be written or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from serving.batching.commits import Commits
from serving.batching.lanes import Lanes
from serving.batching.sequence_admin import STILL_SECONDS, SequenceAdmin
from serving.errors import InvalidRequest, NotReady, OutOfStep, Overloaded, ServingError, StoreFailed
from serving.sequences import counts as why
from serving.sequences import records
from serving.sequences.epochs import Epochs
from serving.sequences.live import Sequences
from serving.sequences.policy import StateLayout
from serving.sequences.records import Record
from tests.simulation.virtual import VirtualClock
from tests.support.fake_disk import FakeDisk
from tests.support.sequence_desk import LAYOUT, POLICY, A, B, C, Desk, told

HOUR = 3600.0


class Office:
    """An operator, and the sequences that he looks after; with a store if there is a disk."""

    def __init__(self, clock: VirtualClock, disk: FakeDisk | None, first: int = 100) -> None:
        self.clock = clock
        self.disk = disk
        self.commits = Commits(disk, clock) if disk else None
        self.epochs = Epochs(first)
        self.lanes = Lanes("m", self.epochs, clock, self.commits)
        self.desk = Desk(clock, self.lanes)
        self.admin = SequenceAdmin(self.lanes, self.epochs.exceed, clock)
        self.lanes.recover()
        clock.sleep(0.001)

    def all(self) -> None:
        """Computes and answers everything."""
        self.clock.sleep(0.001)
        while self.desk.queued:
            self.desk.compute()
            self.clock.sleep(0.001)

    def begin(self, *numbers: int | None, key: tuple[str, int] = A) -> list[object]:
        asked = self.desk.steps(key, *numbers)
        self.all()
        return told(asked)

    def taken(self, id: int = 1, caller: str | None = None) -> Record:
        return records.unpack(self.admin.export(id, caller).record)

    def stored(self) -> list[tuple[int, int]]:
        """What the store holds: ids and how many steps they have taken."""
        assert self.disk
        held = [records.unpack(record) for record in self.disk.rows.values()]
        return sorted((int(record.key[1]), record.taken) for record in held if not record.ended)

    def later(self, job: Callable[[], object]) -> list[object]:
        """Does it on a thread of its own; what came of it."""
        came: list[object] = []

        def work() -> None:
            try:
                came.append(job())
            except ServingError as error:
                came.append(error)

        self.clock.start(work, "operator")
        return came

    def close(self) -> None:
        self.clock.sleep(0.001)
        assert not self.lanes._lanes
        assert not self.lanes._still
        assert self.desk.home._pool.used == self.desk.home.live
        self.lanes.drain(self.desk.home, 0)
        self.clock.sleep(2 * HOUR)
        if self.commits:
            self.commits.close()


Test = Callable[[VirtualClock, Office], None]


def office_test(test: Test) -> Callable[[bool], None]:
    """Runs it in virtual time, without a store and with one."""

    @pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
    def run(stored: bool) -> None:
        clock = VirtualClock(0)

        def main() -> None:
            office = Office(clock, FakeDisk() if stored else None)
            test(clock, office)
            office.close()

        clock.run(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@office_test
def test_a_listing_counts_by_version_and_state(clock: VirtualClock, office: Office) -> None:
    office.begin(0, 1)
    clock.sleep(10)
    office.begin(None, key=B)
    listing = office.admin.listing(1)
    (one,) = listing.versions
    assert (one.version, one.live, one.numbered, one.busy, one.state_bytes) == ("1", 2, 1, 0, 16)
    assert (one.longest_idle_ns // 10**9, one.shortest_idle_ns // 10**9, listing.reads) == (10, 0, False)
    assert [(seen.key, seen.taken, seen.numbered, busy) for seen, busy in listing.some] == [(A, 2, True, False)]
    assert [seen.key for seen, _ in office.admin.listing(1, youngest=True).some] == [B]
    assert [seen.key for seen, _ in office.admin.listing(9).some] == [A, B]
    assert office.admin.listing(0).some == []
    step = office.desk.ask(A, number=2, end=True)
    clock.sleep(0.001)
    assert office.admin.listing(0).versions[0].busy == 1
    assert office.admin.show(1, None)[1]
    office.all()
    assert step.told == 3
    assert office.admin.listing(0).versions[0][1:5] == (1, 0, 0, 1)  # a tomb


@office_test
def test_what_is_not_there_is_refused_with_the_reason(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    assert office.admin.end(1, None).taken == 1
    for job in (office.admin.show, office.admin.export, office.admin.end):
        with pytest.raises(InvalidRequest, match="model 'm' has no sequence 1: the server's operator has ended it"):
            job(1, None)
    with pytest.raises(InvalidRequest, match=r"has no sequence '1' of caller 'you'$"):
        office.admin.show("1", "you")
    assert office.desk.home.counts.ended[why.BY_HAND] == 1
    again = office.desk.ask(A, number=1)
    office.all()
    assert again.told == "InvalidRequest"
    assert "the server's operator has ended it" in again.told_of


@office_test
def test_sequences_of_one_id_are_told_apart_by_caller(clock: VirtualClock, office: Office) -> None:
    office.begin(0, key=("me", 1))
    office.begin(0, 1, key=("you", 1))
    with pytest.raises(InvalidRequest, match=r"several callers: name one with --caller: 'me', 'you'"):
        office.admin.export(1, None)
    assert office.taken(1, "you").taken == 2
    assert office.admin.end(1, "me").key == ("me", 1)
    assert office.admin.show(1, None)[0].key == ("you", 1)


@office_test
def test_a_sequence_taken_along_goes_on_elsewhere(clock: VirtualClock, office: Office) -> None:
    office.begin(0, 1, 2)
    record = office.taken()
    other = Office(clock, FakeDisk() if office.disk else None, first=7)
    seen = other.admin.put(record)
    assert (seen.key, seen.version, seen.epoch, seen.taken, seen.answers) == (A, "1", 100, 3, 3)
    assert seen.idle_ns < 10**9
    if other.disk:
        assert other.stored() == [(1, 3)]
    asked = [other.desk.ask(A, number=2), other.desk.ask(A, number=3, epoch_said=100)]
    other.all()
    assert told(asked) == [3, 4]  # what was answered there, and what comes next
    assert other.begin(0, key=B) == [1]
    assert other.admin.show(2, None)[0].epoch > 100
    other.close()


@office_test
def test_one_without_numbers_is_doubted_once(clock: VirtualClock, office: Office) -> None:
    office.begin(None, None)
    record = office.taken()
    office.admin.end(1, None)
    office.admin.put(record)
    asked = [office.desk.ask(A)]
    office.all()
    asked.append(office.desk.ask(A))
    office.all()
    assert told(asked) == ["BrokenOff", 3]


@office_test
def test_a_busy_one_is_waited_for_and_its_next_steps_wait(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    asked = [office.desk.ask(A, number=number) for number in (1, 2)]
    clock.sleep(0.001)
    came = office.later(office.taken)
    clock.sleep(1)
    assert came == []
    office.desk.compute()
    clock.sleep(1)
    assert [record.taken for record in came if isinstance(record, Record)] == [2]
    office.all()
    assert told(asked) == [2, 3]


@office_test
def test_one_that_is_busy_for_too_long_is_refused(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    asked = office.desk.ask(A, number=1)
    clock.sleep(0.001)
    with pytest.raises(NotReady, match="sequence 1 is busy: a step of it has been on its way for 5 s: try again"):
        office.admin.export(1, None)
    with pytest.raises(NotReady):
        office.admin.end(1, None)
    office.all()
    assert asked.told == 2
    assert office.taken().taken == 2


@office_test
def test_two_operators_take_turns(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    step = office.desk.ask(A, number=1)
    clock.sleep(0.001)
    first = office.later(lambda: office.admin.end(1, None))
    second = office.later(lambda: office.admin.end(1, None))
    office.desk.compute()
    clock.sleep(1)
    assert step.told == 2
    assert sorted(type(each).__name__ for each in (*first, *second)) == ["InvalidRequest", "Look"]
    assert office.desk.home.counts.ended[why.BY_HAND] == 1


@office_test
def test_an_end_may_be_bound_to_what_was_exported(clock: VirtualClock, office: Office) -> None:
    office.begin(0, 1)
    record = office.taken()
    office.desk.ask(A, number=2)
    office.all()
    with pytest.raises(OutOfStep, match="it has taken 3 steps in epoch 100, and was to end after 2"):
        office.admin.end(1, None, epoch=record.epoch, taken=record.taken)
    record = office.taken()
    office.admin.end(1, None, epoch=record.epoch, taken=record.taken)
    assert office.desk.home.live == 0
    if office.disk:
        assert office.stored() == []


@office_test
def test_one_that_lives_is_replaced_only_if_that_was_said(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    record = office.taken()
    office.desk.ask(A, number=1)
    office.all()
    with pytest.raises(
        InvalidRequest, match="lives here already, after 2 steps: --replace ends it and puts this one, after 1"
    ):
        office.admin.put(record)
    assert office.admin.show(1, None)[0].taken == 2
    assert office.admin.put(record, replace=True).taken == 1
    assert office.desk.home.counts.ended[why.BY_HAND] == 1
    asked = office.desk.ask(A, number=1)
    office.all()
    assert asked.told == 2


@office_test
def test_there_must_be_room(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    record = office.taken()
    office.admin.end(1, None)
    office.begin(0, key=B)
    office.begin(0, key=C)
    with pytest.raises(Overloaded, match=r"2 sequences of model 'm' version 1 live, .* max_sequences \(2\)"):
        office.admin.put(record)
    assert sorted(office.desk.home.keys()) == [B, C]
    if office.disk:
        assert office.stored() == [(2, 1), (3, 1)]


@office_test
def test_a_server_that_leaves_takes_none_back_and_lets_them_be_taken_along(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    office.lanes.refuse_starts()
    record = office.taken()
    with pytest.raises(NotReady, match="Server exiting: no sequence is put back any more"):
        office.admin.put(record, replace=True)
    assert office.admin.show(1, None)[0].taken == 1


@office_test
def test_what_means_nothing_here_is_refused_by_name(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    record = office.taken()
    office.admin.end(1, None)
    origin = record.origin
    other = record._replace(origin=origin._replace(weights_sha256="b" * 64, version="9"))
    with pytest.raises(
        InvalidRequest, match=r"weights bbbbbbbbbbbbbbbb\.\.\. \(version 9\), and model 'm' version 1 has aaaa"
    ):
        office.admin.put(other)
    shapes = {"h0": ("hn", "<f8", (3,))}
    with pytest.raises(
        InvalidRequest, match=r"its state is h0 <f8\[3\], and that of model 'm' version 1 is h0 <f8\[1\]"
    ):
        office.admin.put(record._replace(origin=origin._replace(shapes=shapes)), any_weights=True)
    with pytest.raises(InvalidRequest, match="had ended when it was written"):
        office.admin.put(record._replace(ended=True, state=b""))
    for epoch in (0, 2**63):
        with pytest.raises(InvalidRequest, match="more than a server counts"):
            office.admin.put(record._replace(epoch=epoch))
    assert office.desk.home.live == 0
    assert office.admin.put(other, any_weights=True).version == "1"
    assert office.taken().origin.weights_sha256 == "a" * 64


@office_test
def test_the_version_with_its_weights_is_preferred(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    record = office.taken()
    office.admin.end(1, None)
    newer = office.lanes.open("2", "model 'm' version 2", StateLayout(LAYOUT.tensors, "b" * 64), POLICY)
    assert office.admin.put(record).version == "1"
    office.admin.end(1, None)
    of_newer = record._replace(origin=record.origin._replace(weights_sha256="b" * 64))
    assert office.admin.put(of_newer).version == "2"
    office.admin.end(1, None)
    office.lanes.drain(newer, 0)


def with_a_store(test: Test) -> Callable[[], None]:
    def run() -> None:
        clock = VirtualClock(0)

        def main() -> None:
            office = Office(clock, FakeDisk())
            test(clock, office)
            office.close()

        clock.run(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@with_a_store
def test_what_cannot_be_written_has_not_been_done(clock: VirtualClock, office: Office) -> None:
    assert office.disk
    office.begin(0)
    record = office.taken()
    office.desk.ask(A, number=1)
    office.all()
    office.disk.full = True
    for job in (lambda: office.admin.end(1, None), lambda: office.admin.put(record, replace=True)):
        with pytest.raises(StoreFailed, match="nothing has changed: the disk is full"):
            job()
        assert office.admin.show(1, None)[0].taken == 2
    stranger = record._replace(key=B)
    with pytest.raises(StoreFailed):
        office.admin.put(stranger)
    assert list(office.desk.home.keys()) == [A]
    assert office.desk.home.counts.ended[why.BY_HAND] == 0
    office.disk.full = False
    assert office.stored() == [(1, 2)]
    asked = office.desk.ask(A, number=2)
    office.all()
    assert asked.told == 3


@office_test
def test_what_was_to_be_replaced_stays_where_there_is_no_room_for_the_other(
    clock: VirtualClock, office: Office
) -> None:
    office.begin(0)
    record = office.taken()
    office.admin.end(1, None)
    newer = office.lanes.open("2", "model 'm' version 2", StateLayout(LAYOUT.tensors, "b" * 64), POLICY)
    office.admin.put(record._replace(origin=record.origin._replace(weights_sha256="b" * 64)))
    office.begin(0, key=B)
    office.begin(0, key=C)
    with pytest.raises(Overloaded):  # its own version is full
        office.admin.put(record, replace=True)
    assert (list(newer.keys()), newer.counts.ended[why.BY_HAND]) == ([A], 0)
    assert office.taken().taken == 1
    office.lanes.drain(newer, 0)


@with_a_store
def test_what_the_store_has_for_another_version_gives_way(clock: VirtualClock, office: Office) -> None:
    """It is not looked up again when that version comes."""
    office.begin(0)
    record = office.taken()._replace(key=B)
    office.lanes._others[B] = None
    office.admin.put(record)
    assert B not in office.lanes._others
    assert office.stored() == [(1, 1), (2, 1)]


@with_a_store
def test_a_step_that_is_not_written_yet_is_not_exported(clock: VirtualClock, office: Office) -> None:
    """Its commit fails, so it was never taken."""
    assert office.disk
    office.begin(0)
    asked = office.desk.ask(A, number=1)
    clock.sleep(0.001)
    office.disk.full = True
    came = office.later(lambda: office.taken().taken)
    office.desk.compute()
    clock.sleep(1)
    assert (asked.told, came) == ("StoreFailed", [1])
    office.disk.full = False


@with_a_store
def test_what_was_put_back_outlives_the_server(clock: VirtualClock, office: Office) -> None:
    assert office.disk
    office.begin(0, 1)
    record = office.taken()
    office.admin.end(1, None)
    office.admin.put(record._replace(epoch=5000))
    next_life = Office(clock, office.disk.copy(), first=1)
    assert next_life.commits
    assert next_life.commits.first_epoch > 5000
    asked = next_life.desk.ask(A, number=2, epoch_said=5000)
    next_life.all()
    assert asked.told == 3
    next_life.close()


@with_a_store
def test_while_the_store_is_read_nothing_is_said_to_be_missing(clock: VirtualClock, office: Office) -> None:
    office.begin(0)
    record = office.taken()
    office.lanes._read_so_far = set()
    for job in (lambda: office.admin.show(9, None), lambda: office.admin.put(record._replace(key=B))):
        with pytest.raises(NotReady, match="still being read from the store"):
            job()
    assert office.admin.listing(0).reads
    office.lanes._read_so_far = None


def test_a_sequence_that_is_looked_after_is_neither_idle_nor_in_the_way() -> None:
    """It is held still for longer than it may be idle, and goes as soon as it is let go."""
    clock = VirtualClock(0)

    def main() -> None:
        lanes = Lanes("m", Epochs(1), clock)
        desk = Desk(clock, lanes, dataclasses.replace(POLICY, idle_ns=1_000_000_000))
        desk.ask(A, start=True)
        desk.compute()
        home: Sequences = desk.home
        with lanes.still(A, STILL_SECONDS):
            clock.sleep(5)
            assert home.live == 1
        clock.sleep(5)
        assert home.live == 0
        clock.sleep(2 * HOUR)

    clock.run(main)


def test_a_version_that_leaves_waits_for_an_operator() -> None:
    clock = VirtualClock(0)

    def main() -> None:
        lanes = Lanes("m", Epochs(1), clock)
        old = Desk(clock, lanes)
        old.ask(A, start=True)
        old.compute()
        new = Desk(clock, lanes, version="2")
        with lanes.still(A, STILL_SECONDS):
            lanes.carry(old.home, new.home)
            assert (old.home.live, new.home.live) == (1, 0)
        assert (old.home.live, new.home.live) == (0, 1)
        lanes.drain(old.home, 0)
        lanes.drain(new.home, 0)
        clock.sleep(2 * HOUR)

    clock.run(main)


def test_rows_of_the_store_are_of_the_model() -> None:
    """What an operator writes lies where steps of the sequence are written."""
    clock = VirtualClock(0)

    def main() -> None:
        office = Office(clock, FakeDisk())
        assert office.disk
        office.begin(0)
        record, before = office.taken(), set(office.disk.rows)
        office.admin.end(1, None)
        office.admin.put(record)
        assert set(office.disk.rows) == before
        office.close()

    clock.run(main)
