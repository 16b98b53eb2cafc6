"""Each rule of one sequence, and each sentence: what is computed, what is answered again, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from serving.errors import BrokenOff, InvalidRequest, NotReady, OutOfStep, ServingError
from serving.sequences import counts as why
from serving.sequences.live import Begun, Repeat, Sequences
from serving.sequences.memory import Memory
from serving.sequences.policy import SequencePolicy, StateLayout, StateTensor
from serving.sequences.records import pack_outputs, unpack_outputs
from serving.sequences.step import Key, Step

KEY: Key = ("", 7)
LAYOUT = StateLayout([StateTensor("h0", "hn", np.dtype("f8"), (1,), np.zeros(1))], "a" * 64)
SECOND = 1_000_000_000
POLICY = SequencePolicy(window=2, max_sequences=3, idle_ns=10 * SECOND, tombstone_ns=5 * SECOND)
START = {"start": True}
FIRST = {"start": True, "number": 0}


class House(Sequences):
    """Sequences of which each step adds one to the state, and is answered with the sum."""

    def __init__(self, policy: SequencePolicy = POLICY, version: str = "1", memory: Memory | None = None) -> None:
        self.now = 0
        self.busy: set[Key] = set()
        self.epochs = iter(range(100, 1000))
        super().__init__(
            version, f"model 'm' version {version}", LAYOUT, policy,
            epochs=lambda: next(self.epochs), busy=lambda key: key in self.busy, memory=memory,
        )  # fmt: skip

    def go(self, key: Key = KEY, digest: bytes = b"", **said: Any) -> Step | Repeat | Begun:
        """One step to its end, if it is not answered or refused before."""
        step = Step(key, digest=digest or repr(sorted(said.items())).encode(), **said)
        begun = self.begin(step, self.now)
        if begun is not Begun.GOES:
            return begun
        self.compute(step)
        self.commit([step], self.now)
        return step

    def compute(self, *steps: Step) -> None:
        """As one batch, in which the steps lie from the other end."""
        before = [0.0 if step.start else float(self.states("h0", [step.slot])[0, 0]) for step in reversed(steps)]
        new = np.array(before).reshape(-1, 1) + 1
        for row, step in enumerate(reversed(steps)):
            step.new, step.row, step.outputs = {"hn": new}, row, pack_outputs({"y": new[row : row + 1]})

    def state(self, key: Key = KEY) -> float | None:
        """The state of a sequence; None if it does not live."""
        slot = self._find(key)
        return float(self.states("h0", [slot])[0, 0]) if slot >= 0 else None

    def left(self) -> int:
        """Slots that are used by no sequence."""
        return self._pool.used - self.live


NO_START = (
    "inference request for sequence 7 to model 'm' must specify the START flag on the first request of the sequence"
)
OTHERWISE = "sequence 7 of model 'm' version 1 was started"
TAKEN = "step 0 of sequence 7 of model 'm' version 1 was taken"


@pytest.mark.parametrize(
    ("before", "then", "error", "told", "kind"),
    [
        ([], {}, InvalidRequest, NO_START + "$", why.NO_START),
        ([], {"number": 3}, InvalidRequest, NO_START + "$", why.NO_START),
        ([START, {"end": True}], {}, InvalidRequest, NO_START + ": it has ended, 0.0 s ago, after 2 steps", why.NO_START),
        ([FIRST], {}, InvalidRequest, f"{OTHERWISE} with sequence_step, .* it expects step 1", why.NUMBERING),
        ([START], {"number": 1}, InvalidRequest, f"{OTHERWISE} without sequence_step, so no step may", why.NUMBERING),
        ([FIRST], {"number": 2}, OutOfStep, "step 2 of sequence 7 .* leaves a gap: it expects step 1", why.GAP),
        (
            [{**FIRST, "nonce": b"n"}, {"number": 1}, {"number": 2}], {**FIRST, "nonce": b"n"},
            OutOfStep, f"{TAKEN}, but only the last 2 answers .* it expects step 3", why.OLD_STEP,
        ),
        ([FIRST, {"number": 1}], {"number": 1, "digest": b"?"}, InvalidRequest, "step 1 .* other inputs", why.CONTENT),
        (
            [{**FIRST, "nonce": b"n"}], {**FIRST, "nonce": b"n", "digest": b"?"},
            InvalidRequest, f"{TAKEN} with other inputs, .* it expects step 1", why.CONTENT,
        ),
        ([FIRST], {"number": 1, "epoch_said": 99}, OutOfStep, "sequence_epoch 99 .* which is 100", why.OLD_EPOCH),
        ([START], {"epoch_said": 101}, OutOfStep, "sequence_epoch 101 .* not the one that lives", why.OLD_EPOCH),
    ],
)  # fmt: skip
def test_what_is_refused_leaves_no_trace(
    before: Sequence[dict[str, Any]], then: dict[str, Any], error: type[ServingError], told: str, kind: str
) -> None:
    house = House()
    for said in before:
        house.go(**said)
    state, live, steps = house.state(), house.live, house.counts.steps
    with pytest.raises(error, match=told) as refused:
        house.go(**then)
    assert type(refused.value) is error
    assert (house.state(), house.live, house.counts.steps, house.left()) == (state, live, steps, 0)
    assert house.counts.refused == {**dict.fromkeys(why.REFUSALS, 0), kind: 1}


@pytest.mark.parametrize(
    ("before", "then", "answered", "epoch"),
    [
        ([FIRST], FIRST, 1, 100),
        ([FIRST, {"number": 1}], FIRST, 1, 100),
        ([FIRST, {"number": 1}], {"number": 1}, 2, 100),
        ([FIRST, {"number": 1}], {"number": 1, "epoch_said": 100}, 2, 100),
        ([{**FIRST, "nonce": b"n"}], {**FIRST, "nonce": b"n"}, 1, 100),
        ([FIRST, {"number": 1, "end": True}], {"number": 1, "end": True}, 2, 100),
        ([{**FIRST, "end": True}], {**FIRST, "end": True}, 1, 100),
        ([{**FIRST, "nonce": b"n"}, {"number": 1, "end": True}], {**FIRST, "nonce": b"n"}, 1, 100),
    ],
    ids=[
        "START", "START, later", "a step", "a step of that epoch", "START with its nonce", "END", "START and END",
        "START with its nonce, after its END",
    ],
)  # fmt: skip
def test_a_repeat_gets_what_was_answered_then(
    before: Sequence[dict[str, Any]], then: dict[str, Any], answered: float, epoch: int
) -> None:
    house = House()
    for said in before:
        house.go(
            **{key: value for key, value in said.items() if key != "epoch_said"},
            digest=repr(said.get("number")).encode(),
        )
    state, steps = house.state(), house.counts.steps
    repeat = house.go(**then, digest=repr(then.get("number")).encode())
    assert isinstance(repeat, Repeat)
    assert (repeat.epoch, float(unpack_outputs(repeat.outputs)["y"][0, 0])) == (epoch, answered)
    assert (house.state(), house.counts.steps, house.counts.repeats) == (state, steps, 1)


@pytest.mark.parametrize(
    ("before", "then"),
    [
        ([START], START),
        ([FIRST], {**FIRST, "digest": b"?"}),
        ([{**FIRST, "nonce": b"n"}], {**FIRST, "nonce": b"o"}),
        ([{**FIRST, "nonce": b"n"}], FIRST),
        ([FIRST], START),
        ([FIRST, {"number": 1, "end": True}], FIRST),
        ([FIRST, {"number": 1}, {"number": 2}], FIRST),
    ],
    ids=[
        "no number", "another content", "another nonce", "no nonce", "no number any more", "the first has ended",
        "too late to be told from it",
    ],
)  # fmt: skip
def test_another_start_begins_a_new_epoch(before: Sequence[dict[str, Any]], then: dict[str, Any]) -> None:
    house = House()
    for said in before:
        house.go(**said)
    lived = house.live
    started = house.go(**then)
    assert isinstance(started, Step)
    assert (started.epoch, house.state(), house.live) == (101, 1, 1)
    assert (house.counts.starts, house.counts.ended[why.RESTARTED]) == (2, lived)
    assert house.left() == 0


def test_without_numbers_the_step_behind_a_hole_is_refused_once() -> None:
    house = House()
    house.go(**START)
    house.break_off(KEY)
    assert house.is_broken_off(KEY)
    with pytest.raises(BrokenOff, match="this one is refused once; 1 steps are taken: send what comes after them"):
        house.go()
    assert not house.is_broken_off(KEY)
    house.go()
    assert house.state() == 2
    house.break_off(KEY)
    house.go(**START)
    assert house.state() == 1
    house.go()
    assert house.state() == 2, "a START is behind no hole"


def test_with_numbers_there_is_no_hole() -> None:
    house = House()
    house.go(**FIRST)
    house.break_off(KEY)
    house.go(number=1)
    assert house.state() == 2


def test_the_same_id_of_another_caller_or_kind_is_another_sequence() -> None:
    keys: list[Key] = [("", 7), ("", "7"), ("somebody", 7), ("", 2**64 - 1)]
    house = House(dataclasses.replace(POLICY, max_sequences=4))
    for count, key in enumerate(keys, 1):
        house.go(key, start=True)
        for _ in range(count):
            house.go(key)
    assert [house.state(key) for key in keys] == [2, 3, 4, 5]
    assert set(house.keys()) == set(keys)
    house.end(keys[1], why.IDLE, 0)
    assert [house.state(key) for key in keys] == [2, None, 4, 5]


def test_what_was_not_computed_is_undone() -> None:
    house = House()
    for said in (START, {}, START):
        state, used = house.state(), house._pool.used
        step = Step(KEY, **said)
        assert house.begin(step, 0) is Begun.GOES
        house.compute(step)
        house.undo(step)
        house.undo(step)
        assert (house.state(), house._pool.used) == (state, used)
        house.go(**(said or {}))
    assert house.left() == 0


def test_states_of_several_batches_move_together() -> None:
    """As where answers wait for each other: the new states of each step are those of its own batch."""
    house = House()
    keys: list[Key] = [("", n) for n in (1, 2, 3)]
    for count, key in enumerate(keys):
        house.go(key, start=True)
        for _ in range(10 * count):
            house.go(key)
    steps = [Step(key) for key in keys]
    for step in steps:
        assert house.begin(step, 0) is Begun.GOES
    house.compute(steps[0], steps[2])
    house.compute(steps[1])
    house.commit(steps, 0)
    assert [house.state(key) for key in keys] == [2, 12, 22]


def test_an_idle_sequence_is_an_index_and_no_object() -> None:
    house = House()
    house.go(**START)
    house.go()
    assert not house._answers
    assert not house._names
    assert not house._nonces


class TestEnds:
    def test_idle_ones_end_and_the_next_step_is_told_why(self) -> None:
        house = House()
        house.go(**START)
        assert house.next_expiry_ns() == 10 * SECOND
        house.now = 10 * SECOND - 1
        assert house.expire(house.now, 9) == 0
        house.go()
        house.now += 10 * SECOND
        assert house.expire(house.now, 9) == 1
        assert (house.live, house.counts.ended[why.IDLE]) == (0, 1)
        assert [(ended.key, ended.gone.reason, ended.gone.taken) for ended in house.told] == [(KEY, why.IDLE, 2)]
        house.now += 2 * SECOND
        with pytest.raises(InvalidRequest, match=f"{NO_START}: it was idle for longer .*, 2.0 s ago, after 2 steps"):
            house.go()

    def test_one_that_nobody_has_looked_at_is_as_late(self) -> None:
        house = House()
        house.go(**FIRST)
        house.now = 10 * SECOND
        with pytest.raises(InvalidRequest, match="it was idle for longer"):
            house.go(number=1)
        assert isinstance(house.go(**FIRST), Step), "nothing is left to repeat"

    def test_one_with_a_step_on_its_way_is_not_idle(self) -> None:
        house = House()
        house.go(**START)
        house.busy.add(KEY)
        assert house.expire(20 * SECOND, 9) == 0
        house.busy.clear()
        assert house.expire(20 * SECOND, 9) == 1

    def test_not_more_end_at_once_than_asked_for(self) -> None:
        house = House()
        for n in (1, 2, 3):
            house.go(("", n), start=True)
        assert [house.expire(20 * SECOND, 2) for _ in range(3)] == [2, 1, 0]

    def test_for_ever_is_for_ever(self) -> None:
        house = House(dataclasses.replace(POLICY, idle_ns=0))
        house.go(**START)
        assert (house.expire(2**62, 9), house.next_expiry_ns()) == (0, None)

    @pytest.mark.parametrize(
        ("min_idle_ns", "now", "gone"),
        [(4 * SECOND, 5 * SECOND, 1), (4 * SECOND, 3 * SECOND, None), (0, 3 * SECOND, 1)],
        ids=["the one that has been idle longest", "none was idle for so long", "the idlest, however short"],
    )
    def test_a_full_house_evicts_where_it_may(self, min_idle_ns: int, now: int, gone: int | None) -> None:
        house = House(dataclasses.replace(POLICY, evicts=True, min_idle_ns=min_idle_ns))
        for n in (1, 2, 3):
            house.go(("", n), start=True)
        house.now = SECOND
        house.go(("", 2))
        house.busy.add(("", 3))
        house.now = now
        assert house.has_room(now) == (gone is not None)
        assert house.next_eviction_ns() == min_idle_ns
        begun = house.go(("", 4), start=True)
        if gone is None:
            assert begun is Begun.FULL
            return
        assert isinstance(begun, Step)
        with pytest.raises(InvalidRequest, match="it was evicted, idle as it was"):
            house.go(("", gone))
        assert (house.live, house.counts.ended[why.EVICTED]) == (3, 1)

    def test_a_full_house_evicts_nobody_unasked(self) -> None:
        house = House()
        for n in (1, 2, 3):
            house.go(("", n), start=True)
        assert house.go(("", 4), start=True) is Begun.FULL
        assert not house.has_room(2**62)
        assert isinstance(house.go(("", 3), start=True), Step), "which has a slot already"
        assert (house.live, house.left()) == (3, 0)

    def test_bytes_bound_the_house_too(self) -> None:
        house = House(dataclasses.replace(POLICY, max_state_bytes=17))
        assert [house.go(("", n), start=True) is Begun.FULL for n in (1, 2, 3)] == [False, False, True]
        assert house.state_bytes == 16

    @pytest.mark.parametrize(("after_s", "answered"), [(4, True), (5, False)])
    def test_a_tombstone_answers_for_a_while(self, after_s: int, answered: bool) -> None:
        house = House()
        house.go(**FIRST)
        house.go(number=1, end=True)
        house.now = after_s * SECOND
        if answered:
            assert isinstance(house.go(number=1, end=True), Repeat)
            with pytest.raises(InvalidRequest, match=f"{NO_START}: it has ended, 4.0 s ago, after 2 steps"):
                house.go(number=2)
            with pytest.raises(InvalidRequest, match=NO_START):
                house.go(number=1, end=True, epoch_said=99)
        else:
            with pytest.raises(InvalidRequest, match=f"{NO_START}: it has ended"):
                house.go(number=1, end=True)

    def test_nothing_begins_in_a_version_that_has_gone(self) -> None:
        house = House()
        house.closed = True
        for said in (START, {}, FIRST):
            with pytest.raises(NotReady, match="model 'm' version 1 is being unloaded"):
                house.go(**said)
        assert house.left() == 0


class TestCarrying:
    def test_everything_goes_along(self) -> None:
        memory = Memory()
        house, other = House(memory=memory), House(version="2", memory=memory)
        for n in (3, 4):
            other.go(("", n), start=True)  # so that slots differ
        house.go(**FIRST, nonce=b"n")
        house.go(number=1)
        assert house.carry(KEY, other, 0)
        assert (house.live, house.counts.ended[why.CARRIED]) == (0, 1)
        assert memory.find(KEY) is None
        repeat = other.go(number=1)
        assert isinstance(repeat, Repeat)
        assert repeat.epoch == 100
        again = other.go(**FIRST, nonce=b"n")
        assert isinstance(again, Repeat)
        other.go(number=2)
        assert (other.state(), other.live, house.left(), other.left()) == (3, 3, 0, 0)

    def test_a_hole_goes_along(self) -> None:
        house, other = House(), House(version="2")
        house.go(**START)
        house.break_off(KEY)
        assert house.carry(KEY, other, 0)
        with pytest.raises(BrokenOff):
            other.go()

    def test_without_room_nothing_is_done(self) -> None:
        house, other = House(), House(dataclasses.replace(POLICY, max_sequences=1), "2")
        house.go(**START)
        other.go(("", 1), start=True)
        assert not house.carry(KEY, other, 0)
        assert not house.carry(("", 99), other, 0)
        assert (house.state(), other.live, other.left()) == (1, 1, 0)

    def test_an_end_is_remembered_beyond_its_version(self) -> None:
        memory = Memory()
        house, other = House(memory=memory), House(version="2", memory=memory)
        house.go(**FIRST)
        house.go(number=1, end=True)
        assert isinstance(other.go(number=1, end=True), Repeat)
        house.go(("", 1), start=True)
        house.end(("", 1), why.REMOVED, 0)
        with pytest.raises(InvalidRequest, match="its version of the model has gone"):
            other.go(("", 1))
