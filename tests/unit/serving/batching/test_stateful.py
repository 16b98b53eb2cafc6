"""What a stateful version computes with: which state each row begins with, and where the new ones go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from serving.batching.computation import Failed, Ready
from serving.batching.pending import Pending, whole
from serving.batching.stateful import Stateful
from serving.sequences.live import Begun, Sequences
from serving.sequences.policy import SequencePolicy, StateLayout, StateTensor
from serving.sequences.step import Step
from serving.signature.controls import CORRID, END, READY, START, ControlInput
from serving.signature.spec import ModelSpec, StatePair
from serving.signature.tensors import DTYPES, Tensors, TensorSpec
from serving.telemetry.timeline import Timeline
from tests.support.threads import HandClock

# Of a state: its input, its output, its datatype, its shape without the rows, and what it begins with.
State = tuple[str, str, str, tuple[int, ...], float]
ONE: tuple[State, ...] = (("h0", "hn", "FP32", (1, 4), 0.5),)


def spec(states: Sequence[State], controls: Sequence[tuple[ControlInput, TensorSpec]] = ()) -> ModelSpec:
    return ModelSpec(
        inputs=(
            TensorSpec("x", "FP32", (-1, -1), steps_axis=1),
            *(TensorSpec(input, datatype, (-1, *shape)) for input, _, datatype, shape, _ in states),
            *(tensor for _, tensor in controls),
        ),
        outputs=(
            TensorSpec("y", "FP32", (-1, -1), steps_axis=1),
            *(TensorSpec(output, datatype, (-1, *shape)) for _, output, datatype, shape, _ in states),
        ),
        lengths=None,
        state=tuple(StatePair(input, output) for input, output, *_ in states),
        streamable=True,
        tolerance=1e-5,
        weights_sha256="",
        controls=tuple(control for control, _ in controls),
    )


class Counts:
    """Each state becomes so many more as its place among the states, from 1 on, says; `y` is `x`. Keeps what it was given."""

    def __init__(self, states: Sequence[State], fails: Exception | None = None) -> None:
        self.given: Tensors = {}
        self.asked: Sequence[str] = ()
        self.closed = False
        self._states = states
        self._fails = fails

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.given, self.asked = {name: np.array(array) for name, array in inputs.items()}, outputs
        if self._fails:
            raise self._fails
        results: dict[str, Any] = {"y": inputs["x"]}
        for place, (input, output, datatype, _, _) in enumerate(self._states, 1):
            results[output] = (inputs[input] + place).astype(DTYPES[datatype])
        return {name: results[name] for name in outputs}

    def close(self) -> None:
        self.closed = True


class Version:
    """Such a model, and its sequences."""

    def __init__(
        self,
        states: Sequence[State] = ONE,
        controls: Sequence[tuple[ControlInput, TensorSpec]] = (),
        fails: Exception | None = None,
        shown: bool = False,
    ) -> None:
        tensors = [
            StateTensor(input, output, DTYPES[datatype], shape, np.full(shape, begins, DTYPES[datatype]))
            for input, output, datatype, shape, begins in states
        ]
        layout = StateLayout(tensors)
        self.states = states
        self.backend = Counts(states, fails)
        self.home = Sequences(
            "1", "model 'm' version 1", layout, SequencePolicy(idle_ns=0), epochs=iter(range(1, 99)).__next__,
            busy=lambda key: False,
        )  # fmt: skip
        self.computation = Stateful(self.backend, spec(states, controls), layout, HandClock(5), shown=shown)

    def batch(self, *rows: Pending) -> list[Any]:
        """Computes these together; the states of those that are steps move."""
        steps = [pending.step for pending in rows if pending.step]
        for step in steps:
            assert self.home.begin(step, 0) is Begun.GOES
        outcomes = list(self.computation.run([whole(pending) for pending in rows]))
        if all(isinstance(outcome, Ready) for outcome in outcomes) and steps:
            self.home.commit(steps, 0)
        return outcomes

    def given(self, name: str) -> list[Any]:
        """The first element of each row that the backend was given."""
        array = self.backend.given[name]
        return array.reshape(len(array), -1)[:, 0].tolist()  # type: ignore[no-any-return]


class Nobody:
    """Who asks."""

    def encode(self, outputs: Tensors) -> None: ...
    def finish(self, error: object) -> None: ...
    def move(self, lease: object) -> None: ...
    @staticmethod
    def finish_all(requesters: Sequence[Any]) -> None: ...


def request(
    key: int | str | None,
    *,
    rows: int = 1,
    steps: int = 2,
    outputs: Sequence[str] = ("y",),
    brings: Tensors | None = None,
    **said: Any,
) -> Pending:
    """A step of this sequence; with None a request of no sequence."""
    inputs = {"x": np.full((rows, steps), 3, np.float32), **(brings or {})}
    pending = Pending(Nobody(), inputs, rows, steps, list(outputs), (), Timeline(0))
    if key is not None:
        pending.step = Step(("", key), **said)
    return pending


def state(value: float, datatype: str = "FP32", shape: tuple[int, ...] = (1, 4), rows: int = 1) -> Any:
    return np.full((rows, *shape), value, DTYPES[datatype])


def test_each_row_begins_with_its_own_state() -> None:
    version = Version()
    version.batch(request(1, start=True), request(2, start=True, brings={"h0": state(50)}))
    assert version.given("h0") == [0.5, 50]
    version.batch(request(2), request(1))
    assert version.given("h0") == [51, 1.5]
    version.batch(
        request(None, rows=2, brings={"h0": state(70, rows=2)}),
        request(1, start=True),
        request(2),
        request(3, start=True, brings={"h0": state(90)}),
        request(None, brings={"h0": state(80)}),
    )
    assert version.given("h0") == [70, 70, 0.5, 52, 90, 80]
    version.batch(request(3), request(2), request(1))
    assert version.given("h0") == [91, 53, 1.5], "requests of no sequence have moved nothing"


@pytest.mark.parametrize(
    "states",
    [
        (("a0", "z", "FP32", (1, 4), 1.0), ("b0", "y_", "FP32", (1, 4), 2.0)),
        (("b0", "y_", "FP32", (1, 4), 2.0), ("a0", "z", "FP32", (1, 4), 1.0)),
        (("state", "stateN", "FP32", (2, 128), 0.0),),
        (
            ("s1", "t1", "FP32", (2,), 1.0),
            ("s2", "t2", "FP64", (), 2.0),
            ("s3", "t3", "INT64", (3, 1), 3.0),
            ("s4", "t4", "FP16", (1,), 4.0),
        ),
        (("n", "m", "INT32", (1,), 7.0),),
        (("n", "m", "UINT8", (2, 2), 7.0),),
    ],
    ids=["names that sort in opposite orders", "the other way round", "one merged state", "four of four types", "INT32", "UINT8"],
)  # fmt: skip
def test_states_are_paired_by_name_and_keep_their_types(states: Sequence[State]) -> None:
    version = Version(states)
    version.batch(request(1, start=True))
    for taken in range(1, 4):
        version.batch(request(2, start=True), request(1))
        for place, (input, _, datatype, shape, begins) in enumerate(states, 1):
            array = version.backend.given[input]
            assert (array.dtype, array.shape) == (DTYPES[datatype], (2, *shape))
            assert (array[0] == begins).all()
            assert (array[1] == begins + place * taken).all()


def test_the_new_state_is_asked_for_and_given_only_to_who_wants_it() -> None:
    version = Version()
    (first,) = version.batch(request(1, start=True))
    assert list(first.outputs) == ["y"]
    assert set(version.backend.asked) == {"y", "hn"}
    told, untold = version.batch(request(1, outputs=["hn", "y"]), request(2, start=True))
    assert told.outputs["hn"].tolist() == state(2.5).tolist()
    assert list(untold.outputs) == ["y"]


def test_unequal_lengths_are_cut_apart_again() -> None:
    version = Version()
    short, long = version.batch(request(1, start=True, steps=1), request(2, start=True, steps=3))
    assert [each.outputs["y"].shape for each in (short, long)] == [(1, 1), (1, 3)]


def test_what_fails_has_moved_nothing() -> None:
    version = Version()
    version.batch(request(1, start=True))
    version.backend._fails = RuntimeError("no")
    pending = request(1)
    (outcome,) = version.batch(pending)
    assert isinstance(outcome, Failed)
    assert pending.timeline.started == 0
    assert pending.step
    version.home.undo(pending.step)
    version.backend._fails = None
    version.batch(request(1))
    assert version.given("h0") == [1.5]


def test_a_state_that_a_backend_does_not_give_is_a_failure() -> None:
    version = Version()
    version.backend.run = lambda inputs, outputs: {"y": inputs["x"]}  # type: ignore[method-assign]
    (outcome,) = version.batch(request(1, start=True))
    assert isinstance(outcome.error, KeyError)


def control(kind: str, datatype: str, off: float | str = 0, on: float | str = 1) -> tuple[ControlInput, TensorSpec]:
    return ControlInput(kind, kind, off, on), TensorSpec(kind, datatype, (-1, 1))


@pytest.mark.parametrize(
    ("kind", "datatype", "off", "on", "key", "told"),
    [
        (START, "FP32", 0, 1, 5, [1, 0, 0, 0]),
        (START, "INT32", 7, 9, 5, [9, 7, 7, 7]),
        (END, "BOOL", 0, 1, 5, [False, False, True, False]),
        (READY, "INT32", 0, 1, 5, [1, 1, 1, 1]),
        (CORRID, "UINT64", 0, 0, 2**64 - 1, [2**64 - 1] * 3 + [0]),
        (CORRID, "INT32", 0, 0, 5, [5, 5, 5, 0]),
        (CORRID, "BYTES", "", "", "five", [b"five"] * 3 + [b""]),
        (CORRID, "BYTES", "", "", 5, [b"5"] * 3 + [b""]),
    ],
)  # fmt: skip
def test_controls_say_where_each_row_stands(
    kind: str, datatype: str, off: float | str, on: float | str, key: int | str, told: list[object]
) -> None:
    """A START, a step, an END, and a request of no sequence."""
    version = Version(controls=[control(kind, datatype, off, on)])
    alone: Mapping[str, Any] = {"h0": state(0)}
    found = []
    for pending in (request(key, start=True), request(key), request(key, end=True), request(None, brings=alone)):
        version.batch(pending)
        array = version.backend.given[kind]
        assert (array.dtype, array.shape) == (DTYPES[datatype], (1, 1))
        found += version.given(kind)
    assert found == told


def test_a_piece_that_is_computed_again_elsewhere_has_its_state_with_it() -> None:
    version = Version(shown=True)
    pending = request(1, start=True)
    version.batch(pending)
    version.batch(pending := request(1))
    assert pending.inputs["h0"].tolist() == state(1.5).tolist()


def test_closing_frees_the_backend() -> None:
    version = Version()
    version.computation.close()
    assert version.backend.closed
