"""The steps of each sequence of a model, one behind the other: only the first of a sequence is in a queue or computed.

There is one lane for each sequence that has steps on their way, whichever version and backend they go to, so a swap in the middle
changes nothing: the next step is decided upon when the one before it has ended, against what has been taken by then
(`serving.sequences.live`). What stands between queue and requester is a requester itself, so neither the queue nor the worker
knows of lanes. Nobody's request is completed, and nothing is queued, while the lock is held.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar, cast

from serving.batching.commits import Commit, Commits
from serving.batching.in_lane import Entering, Hole, InLane, Work, tell
from serving.batching.pending import finish_all
from serving.clock import SYSTEM, Clock, Thread
from serving.errors import BrokenOff, ComputeFailed, NotReady, Overloaded, ServingError, StoreFailed, TimedOut
from serving.sequences import counts as why
from serving.sequences import records
from serving.sequences.changes import Changes
from serving.sequences.live import Begun, Repeat, Sequences
from serving.sequences.memory import Gone, Memory
from serving.sequences.policy import SequencePolicy, StateLayout, carries
from serving.sequences.records import Record, Torn, number_of
from serving.sequences.step import Key, Step

log = logging.getLogger(__name__)

AT_ONCE = 256  # sequences that end in one go, while others wait for the lock
MOST_OFTEN_NS = 1_000_000_000  # between two looks for idle ones, and a tenth of what they may be idle for
STILL_SECONDS = 0.01  # between two looks whether a sequence is still

Result = TypeVar("Result")


class Inside(NamedTuple):
    """What the lock of a model's lanes guards, for whoever looks after its sequences."""

    homes: Sequence[Sequences]
    memory: Memory
    commits: Commits | None
    others: dict[Key, None]  # which the store holds for versions that are not here
    busy: Sequence[Key]  # which have steps on their way
    reads: bool  # whether sequences of the store are still to come
    starting: bool  # whether new sequences are taken
    now_ns: int
    wall_ns: int


class Lanes:
    """The lanes of one model. Called from any thread.

    With a store, `commits` writes what was computed before it is answered, and tells `committed` or `lost`.
    """

    def __init__(
        self, name: str, epochs: Callable[[], int], clock: Clock = SYSTEM, commits: Commits | None = None
    ) -> None:
        self.name = name
        self._epochs = epochs
        self._clock = clock
        self._changed = clock.condition()  # guards what follows, all `Sequences` included
        self._lanes: dict[Key, deque[InLane | Hole]] = {}
        self._homes: list[Sequences] = []
        self._waiting: dict[Sequences, deque[InLane]] = {}  # STARTs in a full house
        self._commits = commits
        self._changes = Changes(clock.wall_now_ns) if commits else None
        self._memory = Memory(self._forgotten)  # of sequences that have ended, whichever version they were in
        self._uncommitted: Counter[Key] = Counter()  # answers of each that wait until they are written
        self._answering: list[
            InLane | tuple[InLane, Repeat]
        ] = []  # of these, those that nobody has put to be written yet
        self._reading: set[Key] = set()  # what the store holds of these is looked at, and their lanes wait
        self._read_so_far: set[Key] | None = set() if commits else None  # None as soon as all are
        self._doubtful = commits is not None and commits.disk.lost is not None  # whether newer writes may be missing
        self._all_open = False  # every version that was to be loaded has been opened, or could not be
        self._others: dict[Key, None] = {}  # which the store holds for versions that are not here
        self._still: set[Key] = set()  # somebody looks after these, and their lanes wait
        self._held_bytes = 0  # of steps that are in no queue
        self._waiting_bytes = 0  # of these, those of STARTs in a full house
        self._draining = 0  # threads that wait for the end of the sequences of a version
        self._starting = True  # whether new sequences are taken
        self._reaper: Thread | None = None

    # The versions.

    def open(
        self,
        version: str,
        title: str,
        layout: StateLayout,
        policy: SequencePolicy,
        counts: why.SequenceCounts | None = None,
    ) -> Sequences:
        """The sequences of another version, none yet."""
        home = Sequences(
            version,
            title,
            layout,
            policy,
            epochs=self._epochs,
            busy=self._busy,
            memory=self._memory,
            changes=self._changes,
            counts=counts,
        )
        with self._changed:
            self._homes.append(home)
            self._waiting[home] = deque()
        return home

    def follow(self, home: Sequences, policy: SequencePolicy) -> None:
        """From now on this holds for the sequences of a version."""
        with self._changed:
            home.policy = policy
            self._changed.notify_all()

    def drain(self, home: Sequences, seconds: float) -> None:
        """Waits for the end of all sequences of a version, and after so many seconds ends those that are left.

        Nothing begins any more that has to wait for room, and at the end nothing at all.
        """
        until_ns = self._clock.now_ns() + int(seconds * 1e9)
        self._leave(home)
        while True:
            work = Work()
            with self._changed:
                now = self._clock.now_ns()
                home.closed = now >= until_ns
                left = home.live or any(self._steps_of(home))
                if not left:
                    home.closed = True  # for steps that have found it, and come too late
                    self._homes.remove(home)
                    del self._waiting[home]
                    return
                if home.closed:
                    self._end_idle(home, why.REMOVED, now, work)
                    self._write()
                if not work:
                    self._draining += 1
                    self._changed.wait(None if home.closed else self._clock.seconds_until(until_ns))
                    self._draining -= 1
            self._do(work)

    def carry(self, home: Sequences, to: Sequences) -> None:
        """Hands the sequences of a version over to another; those with steps on their way as soon as these have ended.

        One for which there is no room there stays, to be drained.
        """
        self._leave(home, to)
        with self._changed:
            callers = home.ids()
        for caller, ids in callers:
            for begin in range(0, len(ids), AT_ONCE):
                work = Work()
                with self._changed:
                    for id in ids[begin : begin + AT_ONCE]:
                        if not self._busy((caller, id)) and home.knows((caller, id)):
                            self._carry(home, (caller, id), work)
                    self._write()
                self._do(work)

    def _leave(self, home: Sequences, to: Sequences | None = None) -> None:
        work = Work()
        with self._changed:
            home.leaves = True
            home.successor = to or home.successor
            for entry in list(self._waiting[home]):
                self._turn_out(entry, _leaving(home), work)
            self._write()
        self._do(work)

    def home_of_start(self, step: Step) -> Sequences | None:
        """The version in which a sequence lives, or is about to, that this very START has begun; None if it has begun none."""
        if not step.nonce:
            return None
        with self._changed:
            for entry in self._lanes.get(step.key, ()):
                if isinstance(entry, InLane) and entry.step.nonce == step.nonce:
                    return entry.home
            return next((home for home in self._homes if home.began_with(step.key, step.nonce)), None)

    def home_of(self, key: Key) -> Sequences | None:
        """The version that a sequence is pinned to, or was to the end; None of one that nobody knows."""
        with self._changed:
            for entry in reversed(self._lanes.get(key, ())):
                if isinstance(entry, InLane):
                    return entry.home
            for home in self._homes:
                if home.knows(key):
                    return home
            gone = self._memory.find(key)
            return next((home for home in self._homes if gone and home.version == gone.version), None)

    def end_with_server(self) -> None:
        """What still lives is lost with the process, and is said to be, unless a store has it."""
        if self._commits:
            return
        with self._changed:
            lost = [(home.version, home.end_all(why.EXITING)) for home in self._homes]
        for version, count in lost:
            if count:
                fields = {"model": self.name, "version": version, "sequences": count, "reason": why.EXITING}
                log.warning("sequences end with the server", extra={"fields": fields})

    def refuse_starts(self) -> None:
        """The server leaves: no sequence begins any more, and none waits to."""
        work = Work()
        with self._changed:
            self._starting = False
            for waiting in self._waiting.values():
                for entry in list(waiting):
                    self._turn_out(entry, _exiting(), work)
            self._write()
        self._do(work)

    def active(self, since_ns: int) -> bool:
        """Whether any sequence has steps on their way, or has had one since then."""
        with self._changed:
            return bool(self._lanes) or any(home.active(since_ns) for home in self._homes)

    # The steps.

    def enter_all(self, steps: Sequence[Entering]) -> None:
        """Steps have come, in this order, and are right as requests. From here on their requesters are told of their ends."""
        work = Work()
        with self._changed:
            for pending, step, model in steps:
                assert model.sequences is not None, "a step of a model that keeps no state"
                entry = InLane(self, pending, step, model.sequences, model)
                pending.requester, pending.holder, pending.step = entry, self, step
                self._enter(entry, work)
            self._write()
        self._do(work)

    def _enter(self, entry: InLane, work: Work) -> None:
        step = entry.step
        lane = self._lanes.get(step.key)
        if lane is None:
            self._lanes[step.key] = deque([entry])
            self._hold(entry)
            self._advance(step.key, work)
        elif error := self._no_room(lane, entry):
            entry.home.give_up(why.TOO_MANY)
            work.refused.append((entry, error))
            if step.number is None and not isinstance(lane[-1], Hole):
                lane.append(Hole(step.stream))
        else:
            lane.append(entry)
            self._hold(entry)

    def broken_off(self, key: Key, stream: int = 0) -> None:
        """A step was refused as a request, before it came here: its sequence does not go on over the hole.

        Where steps have numbers the next one shows it.
        """
        with self._changed:
            lane = self._lanes.get(key)
            if lane is None:
                self._hole(key, stream)
            elif not isinstance(lane[-1], Hole):  # another one would say no more
                lane.append(Hole(stream))

    def failed(self, entry: InLane, error: ServingError) -> None:
        """A step was not computed, or nobody can have its answer."""
        work = Work()
        self._failed(entry, error, work)
        self._do(work)

    def _failed(self, entry: InLane, error: ServingError, work: Work) -> None:
        with self._changed:
            self._give_up(entry, entry.lost or error, work)
            self._let_in(entry.home, self._clock.now_ns(), work)
            self._take_told(entry.home, work)
            self._write()

    def computed(self, entries: Sequence[InLane]) -> None:
        """Steps of one batch have their answers, which are about to leave."""
        work, home = Work(), entries[0].home
        with self._changed:
            now = self._clock.now_ns()
            for entry in [entry for entry in entries if entry.lost]:
                assert entry.lost
                self._give_up(entry, entry.lost, work, counted=True)
            entries = [entry for entry in entries if not entry.lost]
            for key in [entry.step.key for entry in entries if entry.step.start]:
                for other in self._homes:
                    if other is not home:
                        other.end(key, why.RESTARTED, now)  # first, so that what is written last is what begins
            if entries:
                home.commit([entry.step for entry in entries], now)
                self._answer_when_written(entries)
            for entry in entries:
                key = entry.step.key
                self._lanes[key].popleft()
                self._advance(key, work)
            self._look_after_all(now, work)
        try:
            if self._commits is None:
                finish_all([entry.out_of_lane() for entry in entries])
        finally:
            self._do(work)

    def look_again(self) -> None:
        """The client of a step that waits has gone; it is looked at where it would be in nobody's way for long."""
        work = Work()
        with self._changed:
            now = self._clock.now_ns()
            for home in self._homes:
                self._patience(home, now, work)
            self._write()
        self._do(work)

    # The store.

    @property
    def reads(self) -> bool:
        """Whether sequences of the store are still to come."""
        return self._read_so_far is not None

    def recover(self) -> None:
        """The versions that were to be loaded are open: what the store holds lives again, as far as one of them takes it."""
        if self._commits is None:
            return
        with self._changed:
            first, self._all_open = not self._all_open, True
            waiting, others = list(self._reading), list(self._others)
            self._reading.update(others)
        for key in [*waiting, *others]:
            self._commits.soon(functools.partial(self._read, key))
        if first:
            self._commits.later(functools.partial(self._read_all, -1))

    def committed(self, commits: Sequence[Commit]) -> None:
        """Steps are written: their answers leave, in this order."""
        waiting = [each for commit in commits for each in commit.waiting]
        with self._changed:
            self._are_settled(waiting)
        for repeated, several in itertools.groupby(waiting, lambda each: isinstance(each, tuple)):
            if repeated:
                for entry, repeat in several:
                    self._repeat(entry, repeat)
            else:
                finish_all([entry.out_of_lane() for entry in several])

    def lost(self, commits: Sequence[Commit], error: StoreFailed) -> None:
        """Steps could not be written, so they were not taken, nor was what is computed on them: all is as the store has it."""
        assert self._commits
        with self._changed:
            commits = [*commits, *self._commits.withdraw(self)]
            waiting = [each for commit in commits for each in commit.waiting]
            self._are_settled(waiting)
            entries = [each[0] if isinstance(each, tuple) else each for each in waiting]
            back = dict.fromkeys(entry.step.key for entry in entries)
            self._reading.update(back)
            for key in back:
                first = self._lanes.get(key, [None])[0]
                if isinstance(first, InLane) and first.going:
                    first.lost = error
                    first.home.part(first.step)
        for commit in commits:
            for key, change in commit.changes.items():
                if key not in back:  # nobody waits for it
                    self._commits.owe(self, key, change)
        for each in waiting:
            entry = each[0] if isinstance(each, tuple) else each
            if not isinstance(each, tuple):
                entry.model.metrics.entered()  # it had been counted as answered, and is now refused too
            entry.out_of_lane().finish(error)
        for key in back:
            self._read(key, unnumbered=any(each.step.key == key and each.step.number is None for each in entries))

    def _are_settled(self, waiting: Sequence[InLane | tuple[InLane, Repeat]]) -> None:
        for each in waiting:
            key = (each[0] if isinstance(each, tuple) else each).step.key
            self._uncommitted[key] -= 1
            if not self._uncommitted[key]:
                del self._uncommitted[key]

    def _read(self, key: Key, *, unnumbered: bool = False) -> None:
        """A sequence becomes what the store holds of it. On the store's thread."""
        assert self._commits
        commits, record, reason, owed = self._commits, None, "", False
        try:
            held = None if (owed := commits.forgive(self, key)) else commits.disk.read(self.name, number_of(key))
            record = records.unpack(held) if held is not None else None
            if record is not None and record.key != key:
                record = None
        except (StoreFailed, Torn) as error:
            reason = why.LOST
            self._tell_damaged(number_of(key), error)
        work = Work()
        with self._changed:
            if not self._all_open:
                return  # `recover` asks again
            now = self._clock.now_ns()
            self._reading.discard(key)
            self._others.pop(key, None)
            for home in self._homes:
                home.discard(key, lost=reason == why.LOST)
            self._memory.discard(key)
            self._unwritten(key, still_to_be_deleted=owed)
            if self._read_so_far is not None:
                self._read_so_far.add(key)
            if record is not None:
                self._settle(record, now)
            elif reason:
                self._memory.ended(key, Gone(reason, now, 0, 0, ""))
            if unnumbered:
                self._hole(key, 0)
            if (lane := self._lanes.get(key)) is not None:  # an empty one too: its steps were given up meanwhile
                if lane and isinstance(lane[0], InLane):
                    self._stop_waiting(lane[0])  # for room, which it may not need any more
                self._advance(key, work)
            self._look_after_all(now, work)
        self._do(work)

    def _read_all(self, after: int) -> None:
        """Some more of what the store holds, and when that is all, what waits for room. On the store's thread."""
        assert self._commits
        commits, rows = self._commits, []
        try:
            rows = commits.disk.scan(self.name, after, AT_ONCE)
        except StoreFailed as error:
            log.error("the sequences of %s cannot be read from the store: %s", self.name, error)
        found: list[Record] = []
        for number, held in rows:
            try:
                found.append(records.unpack(held))
            except Torn as error:
                self._memory.torn.add(number)
                self._tell_damaged(number, error)
        work = Work()
        with self._changed:
            now, seen = self._clock.now_ns(), self._read_so_far
            assert seen is not None
            for record in found:
                if record.key not in seen and record.key not in self._reading:
                    self._settle(record, now)
            if not rows:
                self._read_so_far = None
            self._look_after_all(now, work)
        self._do(work)
        if rows:
            commits.later(functools.partial(self._read_all, rows[-1][0]))
        else:
            self._tell_read()

    def _tell_damaged(self, number: int, error: Exception) -> None:
        assert self._commits
        self._commits.counts.damaged += 1
        fields = {"model": self.name, "record": number}
        log.error("a sequence in the store cannot be read: %s", error, extra={"fields": fields})

    def _tell_read(self) -> None:
        with self._changed:
            restored = sum(home.counts.restored for home in self._homes)
            others = len(self._others)
        if restored or others:
            fields = {"model": self.name, "sequences": restored, "of_other_versions": others}
            log.info("sequences of the store go on", extra={"fields": fields})

    # For whoever looks after them; see `serving.batching.sequence_admin`.

    def look(self, job: Callable[[Inside], Result]) -> Result:
        """What a job says that looks at the sequences, or changes some that are kept `still`; the lock is held meanwhile."""
        work = Work()
        try:
            with self._changed:
                now, wall = self._clock.now_ns(), self._clock.wall_now_ns()
                inside = Inside(
                    homes=list(self._homes),
                    memory=self._memory,
                    commits=self._commits,
                    others=self._others,
                    busy=list(self._lanes),
                    reads=self.reads,
                    starting=self._starting,
                    now_ns=now,
                    wall_ns=wall,
                )
                try:
                    return job(inside)
                finally:
                    for home in self._homes:
                        self._let_in(home, now, work)
                        self._take_told(home, work)
                    self._write()
        finally:
            self._do(work)

    @contextlib.contextmanager
    def still(self, key: Key, seconds: float) -> Iterator[None]:
        """Meanwhile no step of a sequence goes on its way, and those that come wait.

        Raises `NotReady` where one has been on its way for so many seconds.
        """
        until_ns, mine = self._clock.now_ns() + int(seconds * 1e9), False
        try:
            with self._changed:
                while not (mine and self._is_still(key)):
                    if not mine and key not in self._still:
                        self._still.add(key)
                        mine = True
                    elif self._clock.now_ns() >= until_ns:
                        raise NotReady(
                            f"sequence {key[1]!r} is busy: a step of it has been on its way for {seconds:g} s: try again"
                        )
                    else:
                        self._changed.wait(STILL_SECONDS)
            yield
        finally:
            work = Work()
            with self._changed:
                if mine:
                    self._still.discard(key)
                    self._go_on(key, work)
                    self._watch_over()
                    self._write()
            self._do(work)

    def _is_still(self, key: Key) -> bool:
        first = self._lanes.get(key, [None])[0]
        going = isinstance(first, InLane) and first.going
        return not (going or key in self._uncommitted or key in self._reading or self.reads)

    def _go_on(self, key: Key, work: Work) -> None:
        if key in self._lanes:
            self._advance(key, work)
        else:
            self._nothing_on_its_way(key, work)

    # Inside; the lock is held.

    def _busy(self, key: Key) -> bool:
        return key in self._lanes or key in self._reading or key in self._still

    def _unwritten(self, key: Key, *, still_to_be_deleted: bool) -> None:
        assert self._changes is not None
        self._changes.forget(key)
        if still_to_be_deleted:
            self._changes.note(key, None)

    def _forgotten(self, key: Key) -> None:
        if self._changes is not None:
            self._changes.note(key, None)

    def _settle(self, record: Record, now: int) -> None:
        """A sequence lives where its state means something, else it is remembered why it does not."""
        home = self._home_for(record)
        reason = (
            why.FOREIGN if home is None else "" if home.restore(record, now, doubtful=self._doubtful) else why.NO_ROOM
        )
        if reason:
            gone = Gone(reason, now, record.epoch, record.taken, record.origin.version)
            self._memory.ended(record.key, gone)
            self._others[record.key] = None

    def _home_for(self, record: Record) -> Sequences | None:
        homes = [home for home in self._homes if not home.leaves and not home.closed]
        for home in homes:
            if home.understands(record):
                return home
        newest = max(homes, key=lambda home: int(home.version), default=None)
        if newest is None or not newest.has_shapes_of(record):
            return None
        same_weights = newest.has_weights_of(record)
        return newest if carries(newest.policy.on_removal, same_weights=same_weights) else None

    def _answer_when_written(self, entries: Sequence[InLane]) -> None:
        if self._commits:
            self._uncommitted.update([entry.step.key for entry in entries])
            self._answering += entries

    def _write(self) -> None:
        """Puts what has changed where it is written, and the answers that leave then. Last of all while the lock is held."""
        if self._commits and self._changes is not None and (self._changes or self._answering):
            waiting, self._answering = self._answering, []
            changes = self._changes.take()
            for key in changes if self._others else ():
                self._others.pop(key, None)
            self._commits.put(Commit(self, changes, waiting))

    def _give_up(self, entry: InLane, error: ServingError, work: Work, *, counted: bool = False) -> None:
        """The first of a lane was not computed, or for nothing; with what would go on over it."""
        entry.home.undo(entry.step)
        lane = self._lanes[entry.step.key]
        lane.popleft()
        if counted:
            entry.model.metrics.entered()  # as answered, by whoever computes, and now it is refused too
        work.refused.append((entry, error))
        self._break_off(entry, lane, work)
        self._advance(entry.step.key, work)

    def _hold(self, entry: InLane) -> None:
        entry.home.held += 1
        self._held_bytes += entry.pending.size

    def _let_go(self, entry: InLane) -> None:
        entry.home.held -= 1
        self._held_bytes -= entry.pending.size

    def _steps_of(self, home: Sequences) -> Iterable[InLane]:
        return (
            each for lane in self._lanes.values() for each in lane if isinstance(each, InLane) and each.home is home
        )

    def _no_room(self, lane: deque[InLane | Hole], entry: InLane) -> ServingError | None:
        window = entry.home.policy.window
        if entry.step.number is not None and window and len(lane) >= window:
            return Overloaded(
                f"{len(lane)} steps of sequence {entry.step.key[1]!r} wait for their answers, and sequence_window is "
                f"{window}: wait for "
                "answers before sending more"
            )
        held = entry.home.held - len(self._waiting.get(entry.home, ()))  # STARTs in a full house hold nobody up
        return entry.model.full(held, self._held_bytes - self._waiting_bytes + entry.pending.size)

    def _advance(self, key: Key, work: Work) -> None:
        """Decides about the first in a lane, until one is on its way or the lane is empty."""
        lane = self._lanes[key]
        if not self._is_read(key):
            return
        while lane:
            first = lane[0]
            if isinstance(first, Hole):
                self._over_hole(key, first, lane, work)
            elif first.going or not self._decide(first, lane, work):
                return
        del self._lanes[key]
        self._nothing_on_its_way(key, work)

    def _nothing_on_its_way(self, key: Key, work: Work) -> None:
        """A sequence may go over to another version now, and who waits for its end looks again."""
        for each in self._homes:
            if each.successor is not None and each.knows(key):
                self._carry(each, key, work)
        if self._draining:
            self._changed.notify_all()

    def _decide(self, first: InLane, lane: deque[InLane | Hole], work: Work) -> bool:
        """What becomes of the first in a lane; False where the next one waits for it."""
        home, key, now = first.home, first.step.key, self._clock.now_ns()
        if error := first.pending.hopeless(now):
            self._out(first, lane, work, error)
            self._break_off(first, lane, work)
            return True
        try:
            begun = self._begin(first, now)
        except ServingError as error:
            self._out(first, lane, work, error.with_traceback(None))  # which leads back to `work`
            if isinstance(error, NotReady):
                self._break_off(first, lane, work)
            elif home.is_broken_off(key):
                self._abort(lane, first.step, work)
            return True
        if begun is Begun.FULL:
            if refusal := self._no_wait(first, now):
                self._out(first, lane, work, refusal)
                self._break_off(first, lane, work)
            return refusal is not None
        self._let_go(first)
        if isinstance(begun, Repeat):
            lane.popleft()
            if key in self._uncommitted:  # what it repeats may yet be lost
                self._uncommitted[key] += 1
                self._answering.append((first, begun))
            else:
                work.repeated.append((first, begun))
            return True
        first.going = True
        work.going.append(first)
        return False

    def _is_read(self, key: Key) -> bool:
        """Whether it is known what the store holds of a sequence; if not, it is looked up."""
        if key in self._still:
            return False
        if self._read_so_far is None or key in self._read_so_far or key in self._reading:
            return key not in self._reading
        assert self._commits
        self._reading.add(key)
        self._commits.soon(functools.partial(self._read, key))
        return False

    def _over_hole(self, key: Key, hole: Hole, lane: deque[InLane | Hole], work: Work) -> None:
        """A step was refused there; those behind it are too, unless their numbers say which they are."""
        lane.popleft()
        self._hole(key, hole.stream)
        if not any(home.is_numbered(key) for home in self._homes):
            self._abort(lane, None, work)

    def _begin(self, entry: InLane, now: int) -> Begun | Repeat:
        """What becomes of the first of a lane, as `Sequences.begin` says; also where its sequence is another version's."""
        home, step = entry.home, entry.step
        others = [each for each in self._homes if each is not home]
        if not others:
            return self._begin_start(home, step, now) if step.start else home.begin(step, now)
        if step.start:
            repeats = (each.started_by(step, now) for each in others)
            return next((repeat for repeat in repeats if repeat), None) or self._begin_start(home, step, now)
        elsewhere = None if home.knows(step.key) else next((each for each in others if each.knows(step.key)), None)
        # It went over between the lease and now. What holds a lease is there yet, and computes it: then it goes over again.
        back = elsewhere is not None and home.successor is elsewhere and home in self._homes and not home.closed
        if elsewhere and not (back and elsewhere.carry(step.key, home, now)):
            raise NotReady(
                f"sequence {step.key[1]!r} has just gone over from {home.title} to another version: send the step again"
            )
        return home.begin(step, now)

    def _begin_start(self, home: Sequences, step: Step, now: int) -> Begun | Repeat:
        if self._starting and (self._read_so_far is None or home.knows(step.key)):
            return home.begin(step, now)
        if repeat := home.started_by(step, now):
            return repeat
        if self._starting:
            return Begun.FULL  # of those that the store may hold
        raise _exiting()

    def _out(self, entry: InLane, lane: deque[InLane | Hole], work: Work, error: ServingError) -> None:
        """Takes the first of a lane out of it, refused."""
        self._stop_waiting(entry)
        lane.popleft()
        self._let_go(entry)
        work.refused.append((entry, error))

    def _stop_waiting(self, entry: InLane) -> None:
        """It does not wait for room."""
        waiting = self._waiting.get(entry.home, ())
        if entry in waiting:
            cast(deque[InLane], waiting).remove(entry)
            self._waiting_bytes -= entry.pending.size

    def _turn_out(self, entry: InLane, error: ServingError, work: Work) -> None:
        """A START does not wait for room any longer."""
        lane = self._lanes[entry.step.key]
        self._out(entry, lane, work, error)
        self._break_off(entry, lane, work)
        self._advance(entry.step.key, work)

    def _hole(self, key: Key, stream: int) -> None:
        """A step without a number was not taken, whichever version its sequence is in."""
        for home in self._homes:
            home.break_off(key, stream)

    def _break_off(self, entry: InLane, lane: deque[InLane | Hole], work: Work) -> None:
        """A step was not taken: neither are those behind it, and without numbers the next one is refused."""
        if entry.step.number is None:
            self._hole(entry.step.key, entry.step.stream)
        self._abort(lane, entry.step, work)

    def _abort(self, lane: deque[InLane | Hole], step: Step | None, work: Work) -> None:
        """Refuses the steps of a lane that would go on over a `step` that was not taken, up to a START or its repetition."""
        left: list[InLane | Hole] = []
        number = step.number if step else None
        entries = list(lane)
        for place, entry in enumerate(entries):
            if isinstance(entry, Hole):
                left.append(entry)
                continue
            its = entry.step.number
            if entry.step.start or (number is not None and its == number):
                left += entries[place:]
                break
            if number is not None and its is not None and its < number:
                left.append(entry)  # the repetition of what was taken
                continue
            if its is None:
                self._hole(entry.step.key, entry.step.stream)  # whatever number the one before it had
            entry.home.give_up(why.EARLIER_FAILED)
            self._let_go(entry)
            work.refused.append(
                (
                    entry,
                    BrokenOff(
                        f"{step or 'a step'} of sequence {entry.step.key[1]!r} before this one was not taken, so neither is this "
                        "one: send both again, in order"
                    ),
                )
            )
        lane.clear()
        lane.extend(left)

    def _no_wait(self, entry: InLane, now: int) -> ServingError | None:
        """Lets a START wait in a full house; why not, if it may not."""
        waiting = self._waiting.get(entry.home)
        if waiting is None or entry.home.leaves:
            return _leaving(entry.home)
        if not self._starting:
            return _exiting()
        asked_ns, most_ns = entry.pending.turn.timeout_ns, entry.home.policy.start_timeout_ns
        patience = min(asked_ns, most_ns) if asked_ns and most_ns else asked_ns or most_ns
        entry.until_ns = entry.pending.timeline.decoded + patience if patience else None
        if entry.until_ns is not None and now >= entry.until_ns:
            return self._no_house(entry)
        if entry.model.full(len(waiting), self._waiting_bytes + entry.pending.size if waiting else 0):
            return self._no_house(entry)
        waiting.append(entry)
        self._waiting_bytes += entry.pending.size
        self._watch_over()
        self._changed.notify_all()
        return None

    def _no_house(self, entry: InLane) -> ServingError:
        entry.home.give_up(why.HOUSE_FULL)
        home = entry.home
        if self.reads:
            return Overloaded(
                f"no new sequence of {home.title} can begin before those of the store have been read, which is a matter of "
                "seconds: try again"
            )
        return Overloaded(
            f"no new sequence of {home.title} can begin: {home.live} live, which are all that max_sequences "
            f"({home.policy.max_sequences}) and max_sequence_state_bytes ({home.policy.max_state_bytes}) allow; end "
            "some, try again "
            "later, or raise them in config.pbtxt"
        )

    def _let_in(self, home: Sequences, now: int, work: Work) -> None:
        """Those that wait for room, as far as there is some."""
        waiting = self._waiting.get(home)
        while waiting and self._read_so_far is None and home.has_room(now):
            entry = waiting.popleft()
            self._waiting_bytes -= entry.pending.size
            self._advance(entry.step.key, work)

    def _patience(self, home: Sequences, now: int, work: Work) -> None:
        """Those that have waited for room for too long."""
        for entry in list(self._waiting[home]):
            error = entry.pending.hopeless(now)
            if error is None and entry.until_ns is not None and now >= entry.until_ns:
                waited_ms = (now - entry.pending.timeline.decoded) / 1e6
                error = TimedOut(
                    f"Request timeout expired: waited {waited_ms:.1f} ms for room; {self._no_house(entry)}"
                )
            if error:
                self._turn_out(entry, error, work)

    def _end_idle(self, home: Sequences, reason: str, now: int, work: Work) -> None:
        """Ends some that have no step on its way."""
        keys = [key for key in itertools.islice(home.keys(), 4 * AT_ONCE) if not self._busy(key)][:AT_ONCE]
        for key in keys:
            home.end(key, reason, now)
        self._take_told(home, work)

    def _carry(self, home: Sequences, key: Key, work: Work) -> None:
        now, to = self._clock.now_ns(), home.successor
        while to is not None and to.successor is not None:
            to = to.successor  # it has gone itself meanwhile
        if to is None or to.closed:
            home.end(key, why.REMOVED, now)
        else:
            home.carry(key, to, now)
        self._watch_over()
        self._take_told(home, work)

    def _look_after_all(self, now: int, work: Work) -> None:
        """What is to follow, in every version, when sequences have changed."""
        for home in self._homes:
            self._let_in(home, now, work)
            self._take_told(home, work)
        self._watch_over()
        self._write()

    def _take_told(self, home: Sequences, work: Work) -> None:
        work.told += home.told
        home.told.clear()

    # The reaper: ends what is idle, and what has waited too long for room.

    def _watch_over(self) -> None:
        if self._reaper is None:
            try:
                self._reaper = self._clock.start(self._reap, f"idle sequences of {self.name}")
            except RuntimeError as refused:  # by the system; it is tried again with the next batch
                log.error("nobody looks for idle sequences of %s: %s", self.name, refused)

    def _reap(self) -> None:
        try:
            while self._reaps():
                pass
        except Exception:
            log.exception("looking for idle sequences of %s has failed; it begins anew", self.name)
            with self._changed:
                self._reaper = None

    def _reaps(self) -> bool:
        """One look, and a wait until the next; False when there is nothing to look for."""
        work = Work()
        with self._changed:
            next_ns, more = self._sweep(self._clock.now_ns(), work)
            if next_ns is None and not more and not work:
                self._reaper = None
                return False
            self._write()
            if not more and not work:
                self._changed.wait(self._clock.seconds_until(next_ns or 0))
        self._do(work)
        return True

    def _sweep(self, now: int, work: Work) -> tuple[int | None, bool]:
        """When to look again, None if there is nothing to look for; and whether there is more to be done at once."""
        times: list[int] = []
        more = False
        for home in self._homes:
            home.expire(now, AT_ONCE)
            more |= home.expires_more
            self._let_in(home, now, work)
            self._patience(home, now, work)
            self._take_told(home, work)
            if (next_ns := home.next_expiry_ns()) is not None:
                least = min(MOST_OFTEN_NS, max(home.policy.idle_ns // 10, 1_000_000))
                times.append(max(next_ns, now + least))
            if self._waiting[home] and (room_ns := home.next_eviction_ns()) is not None:
                times.append(max(room_ns, now + 1_000_000))
            times += [
                min(each for each in (entry.until_ns, entry.pending.deadline_ns) if each is not None)
                for entry in self._waiting[home]
                if entry.until_ns is not None or entry.pending.deadline_ns is not None
            ]
        if self._draining:
            self._changed.notify_all()  # some may have ended
        return min(times, default=None), more

    # Without the lock.

    def _do(self, work: Work) -> None:
        while work:
            for entry, error in work.refused:
                entry.out_of_lane().finish(error)
            for entry, repeat in work.repeated:
                self._repeat(entry, repeat)
            tell(self.name, work.told)
            going, work = work.going, Work()
            for model, entries in itertools.groupby(going, lambda entry: entry.model):
                for pending, error in model.submit_all([entry.pending for entry in entries]):
                    assert isinstance(pending.requester, InLane)
                    self._failed(pending.requester, error, work)

    def _repeat(self, entry: InLane, repeat: Repeat) -> None:
        """Answers a step as it was answered before."""
        requester, timeline = entry.out_of_lane(), entry.pending.timeline
        timeline.started = timeline.computed = timeline.encoded = self._clock.now_ns()
        requester.in_epoch(repeat.epoch)
        try:
            requester.encode(records.unpack_outputs(repeat.outputs))
        except ServingError as error:
            requester.finish(error)
            return
        except Exception as error:
            log.exception("what was answered before to a step of %s cannot be sent again", entry.home.title)
            failed = ComputeFailed(f"what was answered before cannot be sent again: {type(error).__name__}: {error}")
            requester.finish(failed)
            return
        entry.model.metrics.repeated(timeline)
        finish_all([requester])


def _leaving(home: Sequences) -> NotReady:
    return NotReady(f"{home.title} is being unloaded, and no sequence begins in it any more: send the START again")


def _exiting() -> NotReady:
    return NotReady("Server exiting: no new sequence begins")
