"""Who asks for steps, and what computes them, as the lanes of a model see both; nothing is computed before a test says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.batching.in_lane import Entering
from serving.batching.lanes import Lanes
from serving.batching.pending import Pending, Turn, finish_all
from serving.errors import ComputeFailed, Overloaded, ServingError
from serving.sequences.live import Sequences
from serving.sequences.policy import SequencePolicy, StateLayout, StateTensor
from serving.sequences.step import Key, Step
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics
from serving.telemetry.timeline import Timeline
from tests.simulation.virtual import VirtualClock

LAYOUT = StateLayout([StateTensor("h0", "hn", np.dtype("f8"), (1,), np.zeros(1))], "a" * 64)
POLICY = SequencePolicy(window=5, max_sequences=2, idle_ns=0)
A, B, C, D = (("", n) for n in (1, 2, 3, 4))


class Asks:
    """Who asks for a step; `batching.lanes.Asking`. `told` is the answer or the error's class; `told_of` all of either."""

    def __init__(
        self, clock: VirtualClock, key: Key, fails: Exception | None, deadline_ns: int | None, **said: Any
    ) -> None:
        self.step = Step(key, digest=repr(sorted((k, v) for k, v in said.items() if v)).encode(), **said)
        self.epoch = 0
        self.told: object = None
        self.told_of = ""
        self.fails = fails
        self.moved: list[object] = []
        self._outputs: Tensors = {}
        timeline = Timeline(clock.now_ns())
        timeline.decoded = clock.now_ns()
        self.pending = Pending(self, {}, 1, 1, ["y"], (), timeline, deadline_ns, size=10)

    def in_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def encode(self, outputs: Tensors) -> None:
        if self.fails:
            raise self.fails
        self._outputs = outputs

    def finish(self, error: ServingError) -> None:
        self._ends(type(error).__name__, str(error))

    @staticmethod
    def finish_all(requesters: Sequence[Asks]) -> None:
        for each in requesters:
            each._ends(float(each._outputs["y"][0]), "")

    def _ends(self, told: object, told_of: str) -> None:
        assert self.told is None, "ended twice"
        self.told, self.told_of = told, told_of

    def move(self, lease: object) -> None:
        self.moved.append(lease)


class Desk:
    """The model of a version, as lanes see it: what is queued lies in `queued`, and is computed when the test says so."""

    def __init__(self, clock: VirtualClock, lanes: Lanes, policy: SequencePolicy = POLICY, version: str = "1") -> None:
        self.metrics = ModelMetrics()
        self.home = lanes.open(version, f"model 'm' version {version}", LAYOUT, policy)
        self.sequences: Sequences | None = self.home
        self.queued: list[Pending] = []
        self.most = 100
        self._clock = clock
        self._lanes = lanes

    def submit_all(self, requests: Sequence[Pending]) -> list[tuple[Pending, ServingError]]:
        room = self.most - len(self.queued)
        self.queued += requests[:room]
        return [(pending, Overloaded("the queue is full")) for pending in requests[room:]]

    def full(self, ahead: int, size: int) -> Overloaded | None:
        return Overloaded("the queue is full") if len(self.queued) + ahead >= self.most else None

    def ask(
        self,
        key: Key,
        *,
        fails: Exception | None = None,
        deadline: float | None = None,
        patience: float = 0,
        **said: Any,
    ) -> Asks:
        """A step comes."""
        asks = Asks(self._clock, key, fails, None if deadline is None else int(deadline * 1e9), **said)
        asks.pending.turn = Turn(0, int(patience * 1e9))
        self.metrics.entered()
        self._lanes.enter_all([Entering(asks.pending, asks.step, self)])
        return asks

    def steps(self, key: Key, *numbers: int | None, **said: Any) -> list[Asks]:
        """A START and steps with these numbers, or without."""
        return [self.ask(key, start=place == 0, number=number, **said) for place, number in enumerate(numbers)]

    def compute(self) -> list[Key]:
        """Everything that waits, in one batch: each step adds one to its state. Says whose they were."""
        queued, self.queued = self.queued, []
        steps = [pending.step for pending in queued if pending.step]
        before = [0.0 if step.start else float(self.home.states("h0", [step.slot])[0, 0]) for step in steps]
        new = np.array(before).reshape(-1, 1) + 1
        ready = []
        for row, (pending, step) in enumerate(zip(queued, steps, strict=True)):
            step.new, step.row = {"hn": new}, row
            try:
                pending.requester.encode({"y": new[row]})
                ready.append(pending.requester)
            except ServingError as error:
                pending.requester.finish(error)
        finish_all(ready)
        return [step.key for step in steps]

    def fail(self, key: Key) -> None:
        """The step of this sequence that waits cannot be computed."""
        (pending,) = [pending for pending in self.queued if pending.step and pending.step.key == key]
        self.queued.remove(pending)
        pending.requester.finish(ComputeFailed("it cannot be computed"))

    def all(self) -> None:
        while self.queued:
            self.compute()


def told(asked: Sequence[Asks]) -> list[object]:
    return [each.told for each in asked]
