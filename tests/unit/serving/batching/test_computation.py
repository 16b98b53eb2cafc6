"""Pieces go in, an outcome for each comes out, whatever the backend does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from serving.batching.computation import Failed, Ready, Stateless
from serving.batching.pending import whole
from serving.signature.tensors import Tensors
from tests.support.gated import SPEC, Answer
from tests.support.threads import HandClock


class Doubling:
    """Doubles `x` and takes a second of the clock; gives what it is told to instead, or raises it."""

    def __init__(self, clock: HandClock, gives: Tensors | Exception | None = None) -> None:
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.closed = False
        self._clock = clock
        self._gives = gives

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.calls.append((len(inputs["x"]), tuple(outputs)))
        self._clock.passes(1)
        if isinstance(self._gives, Exception):
            raise self._gives
        return self._gives or dict.fromkeys(outputs, inputs["x"] * 2)

    def close(self) -> None:
        self.closed = True


def test_all_pieces_are_computed_in_one_call() -> None:
    clock = HandClock(now_ns=5)
    backend = Doubling(clock)
    answers = [Answer(1, rows=2), Answer(3, output="z"), Answer(4)]
    outcomes = Stateless(backend, SPEC, clock).run([whole(answer.pending) for answer in answers])
    assert backend.calls == [(4, ("y", "z"))]
    assert all(isinstance(outcome, Ready) for outcome in outcomes)
    found = [{name: array.tolist() for name, array in outcome.outputs.items()} for outcome in outcomes]  # type: ignore[union-attr]
    assert found == [{"y": [[2, 2], [2, 2]]}, {"z": [[6, 6]]}, {"y": [[8, 8]]}]
    for answer in answers:
        timeline = answer.pending.timeline
        assert (timeline.started, timeline.computed) == (5, 1_000_000_005)


@pytest.mark.parametrize(
    ("gives", "error"),
    [
        (RuntimeError("out of memory"), RuntimeError),
        ({"z": np.zeros((3, 2))}, KeyError),
        ({"y": np.zeros(3)}, IndexError),  # no axis of steps
    ],
    ids=["it raises", "an output is missing", "an output of another rank"],
)
def test_whatever_goes_wrong_has_happened_to_nobody(gives: Tensors | Exception, error: type[Exception]) -> None:
    clock = HandClock(now_ns=5)
    answers = [Answer(1, rows=2), Answer(3)]
    outcomes = Stateless(Doubling(clock, gives), SPEC, clock).run([whole(answer.pending) for answer in answers])
    for answer, outcome in zip(answers, outcomes, strict=True):
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, error)
        assert (answer.pending.timeline.started, answer.pending.timeline.computed) == (0, 0)


@pytest.mark.parametrize(("steps_axis", "steps"), [(1, 2), (None, 3)], ids=["proved", "not proved"])
def test_an_answer_is_cut_only_where_it_is_known_which_axis_holds_the_steps(steps_axis: int | None, steps: int) -> None:
    outputs = tuple(dataclasses.replace(tensor, steps_axis=steps_axis) for tensor in SPEC.outputs)
    clock = HandClock()
    backend = Doubling(clock, {"y": np.zeros((1, 3))})
    computation = Stateless(backend, dataclasses.replace(SPEC, outputs=outputs), clock)
    (outcome,) = computation.run([whole(Answer(0, steps=2).pending)])
    assert isinstance(outcome, Ready)
    assert outcome.outputs["y"].shape == (1, steps)


def test_closing_frees_the_backend() -> None:
    backend = Doubling(HandClock())
    Stateless(backend, SPEC).close()
    assert backend.closed
