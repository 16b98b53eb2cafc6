"""The sequences of one version: which live, where their states lie, what was answered last, and which step comes next.

A step is looked at when its turn has come, that is when no other step of its sequence is on its way; so there is one writer
for each sequence, and everything here is a comparison with what has been taken. `begin` decides, then `commit` moves the state,
or `undo` leaves it as it was. An idle sequence has a row in arrays and one key in an index, and no other object.

The contract of numbers, repeats and epochs is that of Kafka's idempotent producer (KIP-98), where a producer's epoch fences an
older one and a batch that comes twice is answered twice and written once.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import BrokenOff, InvalidRequest, NotReady, OutOfStep, ServingError
from serving.sequences import counts as why
from serving.sequences import records
from serving.sequences.changes import Change, Changes, Rows
from serving.sequences.counts import SequenceCounts
from serving.sequences.memory import Ended, Gone, Memory, Tomb
from serving.sequences.policy import SequencePolicy, StateLayout
from serving.sequences.pool import Pool
from serving.sequences.records import Kept, Origin, Record
from serving.sequences.step import Key, Step

NUMBERED, HOLE = 1, 2  # flags of a sequence
NEVER = 2**63 - 1  # an instant later than any

Array = npt.NDArray[Any]

ENDED = {
    why.END: "it has ended",
    why.IDLE: "it was idle for longer than max_sequence_idle_microseconds allows",
    why.RESTARTED: "it was started anew elsewhere",
    why.EVICTED: "it was evicted, idle as it was, to make room for another one",
    why.REMOVED: "its version of the model has gone",
    why.CARRIED: "it was carried over to another version",
    why.BY_HAND: "the server's operator has ended it",
    why.FOREIGN: "the store has it from another version or other weights, and sequence_on_removal does not carry it over",
    why.NO_ROOM: "it came back from the store, and there was no room for it",
    why.LOST: "the store could neither write nor read it",
}


class Begun(enum.Enum):
    """What `Sequences.begin` says where it does not answer."""

    GOES = 1  # the step is to be computed
    FULL = 2  # there is no room for another sequence


class Repeat(NamedTuple):
    """The step was taken before; this was answered then."""

    epoch: int
    outputs: bytes  # as `records.pack_outputs` makes them


class Look(NamedTuple):
    """One sequence as it was when somebody looked. It is `broken_off` where its next step is to be refused."""

    key: Key
    version: str
    epoch: int
    taken: int
    idle_ns: int
    numbered: bool
    broken_off: bool
    state_bytes: int
    answers: int
    answer_bytes: int


class Sequences:
    """Called under one lock, that of `serving.batching.lanes`, but for `states`.

    `epochs` gives the next epoch of the server; `busy` says whether steps of a sequence are on their way; `memory` is that of
    the model. Where the model has a store, `changes` takes what it is to hold.
    """

    def __init__(
        self,
        version: str,
        title: str,
        layout: StateLayout,
        policy: SequencePolicy,
        *,
        epochs: Callable[[], int],
        busy: Callable[[Key], bool],
        memory: Memory | None = None,
        changes: Changes | None = None,
        counts: SequenceCounts | None = None,
    ) -> None:
        self.version = version
        self.title = title
        self.layout = layout
        self.policy = policy
        self.counts = counts or SequenceCounts()
        self.told: list[Ended] = []  # what is to be logged, taken by whoever holds the lock
        self.held = 0  # its steps that wait for others of their sequence, or for room; counted by the lanes
        self.leaves = False  # its version goes, and nobody waits for room
        self.signature = b""  # a digest of that of the outputs that are answered
        self.closed = False  # it has gone, and no step begins any more
        self.successor: Sequences | None = None  # to which its sequences are carried over
        self._epochs = epochs
        self._busy = busy
        capacity = min(policy.max_sequences, policy.max_state_bytes // max(1, layout.bytes_each))
        self._pool = Pool(layout.tensors, max(1, capacity))
        self._slots: dict[str, dict[int | str, int]] = {}  # by caller and id
        # By slot. Memory comes as slots are first used.
        self._epoch = np.zeros(self._pool.capacity, np.int64)  # 0 of a slot without a sequence
        self._taken = np.zeros(self._pool.capacity, np.int64)
        self._last_ns = np.zeros(self._pool.capacity, np.int64)  # `NEVER` of a slot without a sequence
        self._flags = np.zeros(self._pool.capacity, np.uint8)
        self._caller = np.zeros(self._pool.capacity, np.uint32)
        self._id = np.zeros(self._pool.capacity, np.uint64)
        self._names: dict[int, str] = {}  # of those whose id is a text
        self._broken_on: dict[int, int] = {}  # of those that were broken off on a stream, which
        self._nonces: dict[int, bytes] = {}
        self._answers: dict[int, list[Kept]] = {}
        self._callers: list[str] = []
        self._caller_numbers: dict[str, int] = {}
        self._memory = memory or Memory()
        self._changes = changes
        self._origin = records.origin_of(version, layout)
        self._understood: Origin | None = None
        self._live = 0
        self._late: Array = np.zeros(0, np.int64)  # slots that were idle for too long when somebody looked

    # What is there.

    @property
    def live(self) -> int:
        """Sequences that have begun and not ended."""
        return self._live

    @property
    def state_bytes(self) -> int:
        """The memory of their states."""
        return self._live * self.layout.bytes_each

    @property
    def full(self) -> bool:
        """Whether there is no room for another one."""
        return self._pool.used >= self._pool.capacity

    def knows(self, key: Key) -> bool:
        """Whether it lives."""
        return self._find(key) >= 0

    def has_room(self, now_ns: int) -> bool:
        """Whether another one can begin now, be it that one that is idle has to go."""
        return not self.full or (self.policy.evicts and self._longest_idle(now_ns) is not None)

    def is_numbered(self, key: Key) -> bool:
        """Whether it lives, and its steps have numbers."""
        slot = self._find(key)
        return slot >= 0 and bool(self._flags[slot] & NUMBERED)

    def is_broken_off(self, key: Key) -> bool:
        """Whether its next step is to be refused; see `break_off`."""
        slot = self._find(key)
        return slot >= 0 and bool(self._flags[slot] & HOLE)

    def active(self, since_ns: int) -> bool:
        """Whether any sequence has had a step since then."""
        last = self._last_ns[: self._pool.lent]
        return bool(self._live) and bool(((last >= since_ns) & (last < NEVER)).any())

    def ids(self) -> list[tuple[str, list[int | str]]]:
        """The ids of those that live now, by caller."""
        return [(caller, list(slots)) for caller, slots in self._slots.items()]

    def keys(self) -> Iterator[Key]:
        """Those that live."""
        for caller, slots in self._slots.items():
            for id in slots:
                yield caller, id

    # One step.

    def begin(self, step: Step, now_ns: int) -> Begun | Repeat:
        """Whether this step is to be computed now, or has been, or waits for room. Raises what it is refused with."""
        if self.closed:
            raise NotReady(f"{self.title} is being unloaded, and its sequences end with it")
        slot = self._find(step.key)
        if slot >= 0 and self._is_idle(slot, now_ns):
            self._end(slot, why.IDLE, now_ns)
            slot = -1
        if step.start:
            return self._begin_start(step, slot, now_ns)
        if slot < 0:
            return self._begin_without_one(step, now_ns)
        epoch, flags = int(self._epoch[slot]), int(self._flags[slot])
        if step.epoch_said and step.epoch_said != epoch:
            raise self._old_epoch(step, epoch)
        if (step.number is not None) != bool(flags & NUMBERED):
            raise self._otherwise_numbered(step, slot)
        if step.number is not None:
            taken = int(self._taken[slot])
            if step.number < taken:
                return self._repeated(step, epoch, taken, self._answers.get(slot, ()))
            if step.number > taken:
                raise self._refused(
                    why.GAP,
                    OutOfStep(
                        f"step {step.number} of {self._called(step.key)} leaves a gap: it expects step {taken}; send that first"
                    ),
                )
        elif (on_its_stream := bool(step.stream) and self._broken_on.get(slot) == step.stream) or flags & HOLE:
            if on_its_stream:
                raise self._refused(
                    why.HOLE,
                    BrokenOff(
                        f"a step before this one of {self._called(step.key)} was not taken, and this one was sent on the same "
                        "stream, perhaps before its client knew: none is taken on it any more until a START; or send "
                        "sequence_step, so that steps can be told apart"
                    ),
                )
            self._flags[slot] &= ~np.uint8(HOLE)
            raise self._refused(
                why.HOLE,
                BrokenOff(
                    f"a step before this one of {self._called(step.key)} was not taken, and steps without sequence_step "
                    "cannot be told "
                    f"apart: this one is refused once; {int(self._taken[slot])} steps are taken: send what comes after them"
                ),
            )
        step.home, step.slot, step.epoch = self, slot, epoch
        return Begun.GOES

    def started_by(self, step: Step, now_ns: int) -> Repeat | None:
        """The answer to this very START, if it began the sequence that lives here. Raises what `begin` raises."""
        slot = self._find(step.key)
        if slot < 0 or step.number is None or self._is_idle(slot, now_ns):
            return None
        return self._start_again(step, slot, now_ns)

    def began_with(self, key: Key, nonce: bytes) -> bool:
        """Whether the sequence lives here, and this is the nonce of its START."""
        slot = self._find(key)
        return slot >= 0 and self._nonces.get(slot) == nonce

    def states(self, name: str, slots: Sequence[int]) -> Array:
        """The states of steps that have begun, by the state's input, one row each. From the thread that computes them."""
        return self._pool.gather(name, np.array(slots, np.int64))

    def undo(self, step: Step) -> None:
        """A step that has begun was not computed, or nobody can have its answer: all is as it was."""
        if step.start and step.slot >= 0 and not self._epoch[step.slot]:
            self._pool.take_back(step.slot)
        step.slot = -1

    def commit(self, steps: Sequence[Step], now_ns: int) -> None:
        """Steps were computed, and their answers are kept or about to leave: the states move.

        They are those of one batch, or of several, where answers have waited for each other.
        """
        slots = np.array([step.slot for step in steps], np.int64)
        written: dict[int, Sequence[tuple[bytes, int]]] = {}
        for new, of_one in itertools.groupby(steps, lambda step: id(step.new)):
            written[new] = self._move(list(of_one))
        for step in steps:
            if step.start:
                self._started(step, now_ns)
        self._last_ns[slots] = now_ns
        self._taken[slots] += 1
        self.counts.steps += len(steps)
        changes = self._changes
        at_ns, taken = (changes.wall_ns(), self._taken[slots].tolist()) if changes is not None else (0, ())
        for place, step in enumerate(steps):
            if step.number is not None and self.policy.window:
                self._keep(step)
            if step.end:
                self._end(step.slot, why.END, now_ns)
            elif changes is not None:
                state = Rows(written[id(step.new)], step.row)
                changes.note(step.key, self._change(step.slot, step.key, step.epoch, taken[place], at_ns, state))
            step.new, step.outputs = {}, b""

    def break_off(self, key: Key, stream: int = 0) -> None:
        """A step without a number was not taken: the next one is refused, once, unless it is a START.

        Of those on its `stream`, whose client need not wait for answers, all are.
        """
        slot = self._find(key)
        if slot >= 0 and not self._flags[slot] & NUMBERED:
            self._flags[slot] |= HOLE
            if stream:
                self._broken_on[slot] = stream

    def give_up(self, kind: str) -> None:
        """Counts a step that its sequence's lane has refused."""
        self.counts.refused[kind] += 1

    # Their ends.

    def end(self, key: Key, reason: str, now_ns: int) -> bool:
        """Ends one; False if it does not live."""
        slot = self._find(key)
        if slot >= 0:
            self._end(slot, reason, now_ns)
        return slot >= 0

    def end_all(self, reason: str) -> int:
        """Counts all that live as ended so, once, since the process ends with them; how many."""
        self.counts.ended[reason] += self._live
        return self._live

    def expire(self, now_ns: int, most: int) -> int:
        """Ends those that have been idle for too long, no more than so many; says how many."""
        self._memory.forget(now_ns, self.policy.tombstone_ns)
        if not self.policy.idle_ns:
            return 0
        since_ns = now_ns - self.policy.idle_ns
        if not len(self._late):  # it is looked for once for all that are found together
            self._late = np.flatnonzero(self._last_ns[: self._pool.lent] <= since_ns)
        late, self._late = self._late[:most].tolist(), self._late[most:]
        ended = 0
        for slot in late:
            if self._last_ns[slot] <= since_ns and not self._busy(self._key(slot)):
                self._end(slot, why.IDLE, now_ns)
                ended += 1
        return ended

    @property
    def expires_more(self) -> bool:
        """Whether some that were found idle for too long have not ended yet."""
        return len(self._late) > 0

    def next_expiry_ns(self) -> int | None:
        """When the first of them will have been idle for too long, or is to be forgotten; None if there is nothing."""
        times = []
        lent = self._pool.lent
        if self._live and self.policy.idle_ns:
            times.append(int(self._last_ns[:lent].min()) + self.policy.idle_ns)
        return min(times + self._memory.next_ns(self.policy.tombstone_ns), default=None)

    def next_eviction_ns(self) -> int | None:
        """When the first of them may go to make room for another one; None if none ever may."""
        if not (self._live and self.policy.evicts):
            return None
        return int(self._last_ns[: self._pool.lent].min()) + self.policy.min_idle_ns

    # Moving to another version.

    def carry(self, key: Key, to: Sequences, now_ns: int) -> bool:
        """Hands one over, with its epoch, its number and its answers; False, and nothing is done, where there is no room."""
        slot = self._find(key)
        there = to._pool.lend() if slot >= 0 else None
        if there is None:
            return False
        for tensor in self.layout.tensors:
            state = self._pool.gather(tensor.input, np.array([slot]))
            to._pool.scatter(tensor.input, np.array([there]), state)
        to._place(key, there, int(self._epoch[slot]))
        for mine, its in ((self._taken, to._taken), (self._last_ns, to._last_ns), (self._flags, to._flags)):
            its[there] = mine[slot]
        broken = (self._broken_on, to._broken_on)
        for kept, its_kept in ((self._nonces, to._nonces), (self._answers, to._answers), broken):
            if slot in kept:
                its_kept[there] = kept.pop(slot)  # type: ignore[assignment]
        self._end(slot, why.CARRIED, now_ns)
        self._memory.lives(key, anew=False)
        if to._changes is not None:
            to._changes.note(key, to.change_of(key, now_ns, to._changes.wall_ns()))
        return True

    # From the store and back.

    def understands(self, record: Record) -> bool:
        """Whether a state that was written then is one of this version and these weights."""
        if record.origin is not self._understood:  # it is the same for all but a few
            if self.version != record.origin.version or not (
                self.has_weights_of(record) and self.has_shapes_of(record)
            ):
                return False
            self._understood = record.origin
        return True

    def has_weights_of(self, record: Record) -> bool:
        """Whether it was written with the same weights; they are known of some formats alone."""
        return bool(self.layout.weights_sha256) and self.layout.weights_sha256 == record.origin.weights_sha256

    def has_shapes_of(self, record: Record) -> bool:
        """Whether it is the state of tensors of the same names, datatypes and shapes."""
        return dict(self.layout.shapes) == dict(record.origin.shapes)

    def restore(self, record: Record, now_ns: int, *, doubtful: bool = False) -> bool:
        """A sequence lives again as it was written, or is remembered; False where there is no room for it.

        Time that has passed since counts; a wall clock that was set back stands still for it. It is `doubtful` where newer
        writes may have been lost: numbers show that, and without them the next step is refused.
        """
        assert self._changes is not None
        at_ns = now_ns - max(0, self._changes.wall_ns() - record.at_ns)
        key = record.key
        if record.ended:
            gone = Gone(why.END, at_ns, record.epoch, record.taken, self.version)
            self._memory.ended(key, gone)
            self._memory.keep(key, Tomb(gone, record.nonce, record.answers), self._pool.capacity)
            return True
        if 0 < self.policy.idle_ns <= now_ns - at_ns:
            gone = Gone(why.IDLE, at_ns + self.policy.idle_ns, record.epoch, record.taken, self.version)
            self.counts.ended[why.IDLE] += 1
            self.told.append(Ended(key, gone))
            self._memory.ended(key, gone)
            self._changes.note(key, None)
            return True
        if not self.place(record, at_ns, doubtful=doubtful):
            return False
        self.counts.restored += 1
        return True

    def place(self, record: Record, at_ns: int, *, doubtful: bool) -> bool:
        """A sequence lives as its record says, as if its last step had been then; False where there is no room for it."""
        slot, key = self._pool.lend(), record.key
        if slot is None:
            return False
        for name, state in record.states().items():
            self._pool.put(name, slot, state)
        self._place(key, slot, record.epoch)
        self._taken[slot], self._last_ns[slot] = record.taken, at_ns
        self._flags[slot] = NUMBERED if record.numbered else HOLE if doubtful else 0
        if record.nonce:
            self._nonces[slot] = record.nonce
        if record.answers:
            self._answers[slot] = list(record.answers)
        self._memory.lives(key, anew=True)
        return True

    def discard(self, key: Key, *, lost: bool = False) -> None:
        """Whatever is known of it here was never written: it is as if it had not been, or is `lost` altogether."""
        slot = self._find(key)
        if slot >= 0:
            self.counts.ended[why.LOST] += lost
            self._clear(slot, key)
            self._free(slot)

    def part(self, step: Step) -> None:
        """A step is computed on what is about to be discarded: the slot is not its own any more."""
        if self._find(step.key) == step.slot:
            step.slot = -1

    # For whoever looks after them.

    def record_of(self, key: Key, now_ns: int, wall_ns: int) -> bytearray | None:
        """A sequence that lives here, as bytes; see `records`."""
        change = self.change_of(key, now_ns, wall_ns)
        return change.record() if change else None

    def change_of(self, key: Key, now_ns: int, wall_ns: int) -> Change | None:
        """What a store is to hold of a sequence, as it lives here now."""
        slot = self._find(key)
        if slot < 0:
            return None
        at_ns = wall_ns - (now_ns - int(self._last_ns[slot]))
        epoch, taken = int(self._epoch[slot]), int(self._taken[slot])
        return self._change(slot, key, epoch, taken, at_ns, self._state_of(slot))

    def callers_of(self, id: int | str) -> list[str]:
        """Who has a sequence of this id that lives here."""
        return [caller for caller, slots in self._slots.items() if id in slots]

    def look(self, key: Key, now_ns: int) -> Look | None:
        """What one is now; None of one that does not live here."""
        slot = self._find(key)
        if slot < 0:
            return None
        answers = self._answers.get(slot, ())
        return Look(
            key=key,
            version=self.version,
            epoch=int(self._epoch[slot]),
            taken=int(self._taken[slot]),
            idle_ns=max(0, now_ns - int(self._last_ns[slot])),
            numbered=bool(self._flags[slot] & NUMBERED),
            broken_off=bool(self._flags[slot] & HOLE),
            state_bytes=self.layout.bytes_each,
            answers=len(answers),
            answer_bytes=sum(len(kept.packed) for kept in answers),
        )

    def longest_idle(self, most: int, *, youngest: bool = False) -> list[Key]:
        """Those that have been idle longest, or shortest; that one first."""
        slots = np.flatnonzero(self._epoch[: self._pool.lent])
        last = self._last_ns[slots] * (-1 if youngest else 1)
        if 0 < most < len(slots):
            few = np.argpartition(last, most - 1)[:most]
            slots, last = slots[few], last[few]
        order = np.argsort(last, kind="stable")[:most]
        return [self._key(int(slot)) for slot in slots[order]]

    @property
    def numbered(self) -> int:
        """How many of those that live count their steps."""
        lent = self._pool.lent
        return int(np.count_nonzero((self._epoch[:lent] > 0) & (self._flags[:lent] & NUMBERED > 0)))

    # Inside.

    def _state_of(self, slot: int) -> bytes:
        index = np.array([slot])
        return b"".join([self._pool.gather(tensor.input, index).tobytes() for tensor in self.layout.tensors])

    def _change(self, slot: int, key: Key, epoch: int, taken: int, at_ns: int, state: bytes | Rows) -> Change:
        numbered = bool(self._flags[slot] & NUMBERED)
        nonce = self._nonces.get(slot, b"") if numbered else b""
        answers = tuple(self._answers.get(slot, ())) if numbered else ()
        return Change(self._origin, key, epoch, taken, at_ns, numbered, False, nonce, state, answers)

    def _move(self, steps: Sequence[Step]) -> Sequence[tuple[bytes, int]]:
        """The new states of steps of one batch come to lie where their sequences are; as bytes too, where they are written."""
        written = []
        slots, rows = np.array([step.slot for step in steps], np.int64), [step.row for step in steps]
        for tensor in self.layout.tensors:
            states = steps[0].new[tensor.output]
            self._pool.scatter(tensor.input, slots, states if rows == list(range(len(states))) else states[rows])
            if self._changes is not None:
                states = np.asarray(states, tensor.dtype)
                written.append((states.tobytes(), states[:1].nbytes))
        return written

    def _find(self, key: Key) -> int:
        slots = self._slots.get(key[0])
        return slots.get(key[1], -1) if slots else -1

    def _key(self, slot: int) -> Key:
        caller = self._callers[int(self._caller[slot])]
        return caller, self._names.get(slot) or int(self._id[slot])

    def _called(self, key: Key) -> str:
        return f"sequence {key[1]!r} of {self.title}"

    def _is_idle(self, slot: int, now_ns: int) -> bool:
        return 0 < self.policy.idle_ns <= now_ns - int(self._last_ns[slot])

    def _begin_start(self, step: Step, slot: int, now_ns: int) -> Begun | Repeat:
        if step.number is not None and (repeat := self._start_again(step, slot, now_ns)):
            return repeat
        if slot < 0:
            lent = self._pool.lend()
            if lent is None and self.policy.evicts and self._evict(now_ns):
                lent = self._pool.lend()
            if lent is None:
                return Begun.FULL
            slot = lent
            self._last_ns[slot] = NEVER
        step.home, step.slot, step.epoch = self, slot, self._epochs()
        return Begun.GOES

    def _start_again(self, step: Step, slot: int, now_ns: int) -> Repeat | None:
        """What was answered to the START that this one repeats, if it repeats one."""
        if slot >= 0:
            epoch, taken, nonce = int(self._epoch[slot]), int(self._taken[slot]), self._nonces.get(slot, b"")
            answers: Sequence[Kept] = self._answers.get(slot, ())
        elif tomb := self._tomb(step.key, now_ns):
            epoch, taken, nonce, answers = tomb.gone.epoch, tomb.gone.taken, tomb.nonce, tomb.answers
        else:
            return None
        if step.nonce:
            return self._repeated(step, epoch, taken, answers) if step.nonce == nonce else None
        first = answers[0] if answers else None
        alike = first is not None and first.number == 0 and first.digest == step.digest
        # Of what has ended, only that which was ended by the very same message: another START may well begin alike.
        return self._repeated(step, epoch, taken, answers) if alike and (slot >= 0 or taken == 1) else None

    def _begin_without_one(self, step: Step, now_ns: int) -> Repeat:
        tomb = self._tomb(step.key, now_ns)
        if (
            tomb
            and step.number is not None
            and step.epoch_said in (0, tomb.gone.epoch)
            and step.number < tomb.gone.taken
        ):
            return self._repeated(step, tomb.gone.epoch, tomb.gone.taken, tomb.answers)
        gone = self._memory.find(step.key)
        because = ""
        if gone:
            ago = max(0, now_ns - gone.at_ns) / 1e9
            because = f": {ENDED[gone.reason]}, {ago:.1f} s ago, after {gone.taken} steps"
        elif self._memory.torn and records.number_of(step.key) in self._memory.torn:
            because = ": what the store holds of it is damaged"
        raise self._refused(
            why.NO_START,
            InvalidRequest(
                f"inference request for sequence {step.key[1]} to model '{self.title.split(chr(39))[1]}' must specify "
                "the START flag "
                f"on the first request of the sequence{because}"
            ),
        )

    def _repeated(self, step: Step, epoch: int, taken: int, answers: Sequence[Kept]) -> Repeat:
        """The answer that a step has had. Raises where it is not kept any more, or was that to something else."""
        kept = next((each for each in answers if each.number == step.number), None)
        if kept is not None and kept.signature != self.signature:
            raise self._refused(
                why.OLD_STEP,
                OutOfStep(
                    f"step {step.number} of {self._called(step.key)} was taken, but answered by a version whose outputs are "
                    f"others, and which has gone: it expects step {taken}"
                ),
            )
        if kept is None:
            raise self._refused(
                why.OLD_STEP,
                OutOfStep(
                    f"step {step.number} of {self._called(step.key)} was taken, but only the last {self.policy.window} "
                    "answers are kept "
                    f"(sequence_window): it expects step {taken}"
                ),
            )
        if kept.digest != step.digest:
            raise self._refused(
                why.CONTENT,
                InvalidRequest(
                    f"step {step.number} of {self._called(step.key)} was taken with other inputs, or asked for other "
                    "outputs: the same "
                    f"number is for the same message only; it expects step {taken}"
                ),
            )
        self.counts.repeats += 1
        return Repeat(epoch, kept.outputs)

    def _old_epoch(self, step: Step, epoch: int) -> ServingError:
        return self._refused(
            why.OLD_EPOCH,
            OutOfStep(
                f"sequence_epoch {step.epoch_said} of {self._called(step.key)} is not the one that lives, which is "
                f"{epoch}: it was "
                "started anew; start a sequence of your own, or go on with that epoch if it is yours"
            ),
        )

    def _otherwise_numbered(self, step: Step, slot: int) -> ServingError:
        if step.number is None:
            told = (
                f"was started with sequence_step, so each step must send it: it expects step {int(self._taken[slot])}"
            )
        else:
            told = (
                "was started without sequence_step, so no step may send it: leave it out, or start with sequence_step 0"
            )
            self._flags[slot] |= HOLE
        return self._refused(why.NUMBERING, InvalidRequest(f"{self._called(step.key)} {told}"))

    def _refused(self, kind: str, error: ServingError) -> ServingError:
        self.counts.refused[kind] += 1
        return error

    def _started(self, step: Step, now_ns: int) -> None:
        slot = step.slot
        if self._epoch[slot]:
            self._forget_slot(slot, why.RESTARTED, now_ns)
        self._place(step.key, slot, step.epoch)
        self._taken[slot] = 0
        self._flags[slot] = 0 if step.number is None else NUMBERED
        if step.nonce:
            self._nonces[slot] = step.nonce
        self._memory.lives(step.key, anew=True)
        self.counts.starts += 1

    def _place(self, key: Key, slot: int, epoch: int) -> None:
        caller, id = key
        number = self._caller_numbers.get(caller)
        if number is None:
            number = self._caller_numbers[caller] = len(self._callers)
            self._callers.append(caller)
            self._slots[caller] = {}
        self._slots[caller][id] = slot
        self._caller[slot], self._epoch[slot] = number, epoch
        if isinstance(id, str):
            self._names[slot] = id
        else:
            self._id[slot] = id
        self._live += 1

    def _keep(self, step: Step) -> None:
        assert step.number is not None
        answers = self._answers.setdefault(step.slot, [])
        answers.append(Kept.of(step.number, step.digest, self.signature, step.outputs))
        del answers[: -self.policy.window]

    def _end(self, slot: int, reason: str, now_ns: int) -> None:
        self._forget_slot(slot, reason, now_ns)
        self._free(slot)

    def _free(self, slot: int) -> None:
        self._epoch[slot] = self._taken[slot] = 0
        self._last_ns[slot] = NEVER
        self._pool.take_back(slot)

    def _clear(self, slot: int, key: Key) -> tuple[bytes, list[Kept] | None]:
        """Takes a sequence out of its slot, which is not free yet; its nonce, and the answers that were kept."""
        del self._slots[key[0]][key[1]]
        self._names.pop(slot, None)
        self._broken_on.pop(slot, None)
        self._live -= 1
        return self._nonces.pop(slot, b""), self._answers.pop(slot, None)

    def _forget_slot(self, slot: int, reason: str, now_ns: int) -> None:
        """A sequence has ended; its slot is not free yet."""
        key = self._key(slot)
        gone = Gone(reason, now_ns, int(self._epoch[slot]), int(self._taken[slot]), self.version)
        nonce, answers = self._clear(slot, key)
        self.counts.ended[reason] += 1
        self.told.append(Ended(key, gone))
        self._memory.ended(key, gone)
        tomb = Tomb(gone, nonce, tuple(answers)) if reason == why.END and answers and self.policy.tombstone_ns else None
        if tomb:
            self._memory.keep(key, tomb, self._pool.capacity)
        if self._changes is not None:
            self._changes.note(key, self._buried(key, tomb, self._changes.wall_ns()) if tomb else None)

    def _buried(self, key: Key, tomb: Tomb, at_ns: int) -> Change:
        gone = tomb.gone
        return Change(self._origin, key, gone.epoch, gone.taken, at_ns, True, True, tomb.nonce, b"", tomb.answers)

    def _tomb(self, key: Key, now_ns: int) -> Tomb | None:
        return self._memory.tomb(key, now_ns, self.policy.tombstone_ns)

    def _evict(self, now_ns: int) -> bool:
        """Ends the one that has been idle longest, if that is long enough."""
        slot = self._longest_idle(now_ns)
        if slot is not None:
            self._end(slot, why.EVICTED, now_ns)
        return slot is not None

    def _longest_idle(self, now_ns: int) -> int | None:
        """The one that may go to make room for another one; None if there is none."""
        last, since_ns = self._last_ns[: self._pool.lent], now_ns - self.policy.min_idle_ns
        if not len(last) or last[oldest := int(last.argmin())] > since_ns:
            return None
        if not self._busy(self._key(oldest)):
            return oldest
        late = np.flatnonzero(last <= since_ns)
        slots = late[np.argsort(last[late], kind="stable")]
        return next((int(slot) for slot in slots if not self._busy(self._key(int(slot)))), None)
