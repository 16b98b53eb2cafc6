"""Each rule of one sequence, and each sentence: what is computed, what is answered again, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.sequences.live import Begun, Repeat, Sequences
from serving.sequences.policy import SequencePolicy, StateLayout, StateTensor
from serving.sequences.step import Key, Step

KEY: Key = ("", 7)
LAYOUT = StateLayout([StateTensor("h0", "hn", np.dtype("f8"), (1,), np.zeros(1))], "a" * 64)
SECOND = 1_000_000_000
POLICY = SequencePolicy(window=2, max_sequences=3, idle_ns=10 * SECOND, tombstone_ns=5 * SECOND)
START = {"start": True}
FIRST = {"start": True, "number": 0}


class House(Sequences):
    """Sequences of which each step adds one to the state, and is answered with the sum."""

    def __init__(self, policy: SequencePolicy = POLICY, version: str = "1") -> None:
        self.now = 0
        self.busy: set[Key] = set()
        self.epochs = iter(range(100, 1000))
        super().__init__(
            version, f"model 'm' version {version}", LAYOUT, policy,
            epochs=lambda: next(self.epochs), busy=lambda key: key in self.busy,
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
            step.new, step.row, step.outputs = {"hn": new}, row, {"y": new[row : row + 1]}

    def state(self, key: Key = KEY) -> float | None:
        """The state of a sequence; None if it does not live."""
        slot = self._find(key)
        return float(self.states("h0", [slot])[0, 0]) if slot >= 0 else None

    def left(self) -> int:
        """Slots that are used by no sequence."""
        return self._pool.used - self.live


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
