"""Whatever happens at once, the state of a sequence is never wrong and never silently lost. A seed that fails is printed.

python -m pytest tests/simulation --seeds 100000       many of them (make simulate SEEDS=100000)
python -m pytest tests/simulation --seed 4711          one of them again, with its history
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from serving.batching.computation import Outcome
from serving.batching.lanes import Lanes
from serving.batching.pending import Piece
from serving.batching.stateful import Stateful
from serving.errors import ServingError
from serving.sequences import counts as why
from serving.sequences.counts import ENDS, REFUSALS
from serving.sequences.live import Begun, Repeat, Sequences
from serving.sequences.step import Step
from tests.simulation.sequences import SequenceWorld

PARTS = 8  # of the seeds, so that several processes can run them side by side
MOST_SEEDS = 2000  # within which a planted fault is found


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """What is logged of backends that break on purpose costs more than the simulation."""
    logging.getLogger("serving").setLevel(logging.CRITICAL)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_sequence_is_what_was_answered(part: int, seeds: range, replayed: bool) -> None:
    for seed in seeds[part::PARTS]:
        world = SequenceWorld(seed)
        try:
            world.run()
        except BaseException as error:
            raise AssertionError(
                f"seed {seed} (again: pytest tests/simulation --seed {seed}): {error}\n{told(world)}"
            ) from error
        if replayed:
            print(told(world))


def told(world: SequenceWorld) -> str:
    """What has happened, a line for each."""
    return "\n".join(f"{at / 1e6:10.3f} ms  {number} {what}" for at, what, number in world.history)


@pytest.mark.parametrize("seed", range(0, 100, 7))
def test_a_seed_gives_the_same_history_again(seed: int) -> None:
    first, second = SequenceWorld(seed), SequenceWorld(seed)
    first.run()
    second.run()
    assert first.history == second.history


class Hasty(Stateful):
    """Moves the states as soon as they are computed, whether or not somebody gets the answers."""

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]:
        outcomes = super().run(pieces)
        for piece in pieces:
            step = piece.pending.step
            if step and step.new and isinstance(step.home, Sequences):
                for tensor in self._layout.tensors:
                    step.home._pool.scatter(tensor.input, [step.slot], step.new[tensor.output][[step.row]])  # type: ignore[arg-type]
        return outcomes


class Mixed(Stateful):
    """Takes the new states of a batch from the other end."""

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]:
        outcomes = super().run(pieces)
        for piece in pieces:
            if piece.pending.step:
                piece.pending.step.row = len(pieces) - 1 - piece.pending.step.row
        return outcomes


class Careless(Lanes):
    """Goes on with the steps behind one that has failed."""

    def _abort(self, lane: deque[Any], step: Step | None, work: Any) -> None: ...


class Silent(Lanes):
    """Forgets that a step was not taken."""

    def _hole(self, key: Any, stream: int) -> None: ...


class FromNothing(Sequences):
    """Begins what has not been started."""

    def _begin_without_one(self, step: Step, now_ns: int) -> Repeat:
        step.start = True
        return super()._begin_start(step, -1, now_ns)  # type: ignore[return-value]


class Lenient(Sequences):
    """Does not look at epochs."""

    def begin(self, step: Step, now_ns: int) -> Begun | Repeat:
        step.epoch_said = 0
        return super().begin(step, now_ns)


class Amnesiac(Sequences):
    """Begins anew what was begun by the very same START."""

    def _start_again(self, step: Step, slot: int, now_ns: int) -> Repeat | None:
        return None


def lanes_of(kind: type[Sequences]) -> type[Lanes]:
    """Lanes that open such sequences."""

    class Opening(Lanes):
        def open(self, version: str, title: str, layout: Any, policy: Any, counts: Any = None) -> Sequences:
            home = super().open(version, title, layout, policy, counts)
            home.__class__ = kind
            return home

    return Opening


def promises_broken(**fault: Any) -> Iterator[str]:
    """What is found, seed for seed, until somebody has seen enough."""
    for seed in range(MOST_SEEDS):
        try:
            SequenceWorld(seed, **fault).run()
        except (AssertionError, ServingError) as error:
            yield str(error)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ({"computation": Hasty}, "and not"),
        ({"computation": Mixed}, "and not"),
        ({"lanes": Careless}, "goes on over a hole"),
        ({"lanes": Silent}, "goes on over a hole"),
        ({"lanes": lanes_of(FromNothing)}, "no START was"),
        ({"lanes": lanes_of(Lenient)}, "another epoch was meant"),
        ({"lanes": lanes_of(Amnesiac)}, "begun twice"),
    ],
    ids=["hasty", "mixed", "careless", "silent", "from nothing", "lenient", "amnesiac"],
)
def test_a_planted_fault_is_found(fault: dict[str, Any], found: str) -> None:
    """A simulation that finds nothing must be one that could."""
    assert any(found in said for said in promises_broken(**fault))


def test_the_seeds_see_everything_that_may_happen() -> None:
    """A simulation in which nothing goes wrong would prove nothing."""
    seen, ended, refused = list[str](), set[str](), set[str]()
    for seed in range(150):
        world = SequenceWorld(seed)
        world.run()
        seen += [what for _, what, _ in world.history]
        ended |= {kind for each in world.counts for kind, count in each.ended.items() if count}
        refused |= {kind for each in world.counts for kind, count in each.refused.items() if count}
    missing = [what for what in WANTED if not any(each.startswith(what) for each in seen)]
    assert not missing
    assert ended == set(ENDS) - {why.BY_HAND, why.LOST}
    assert refused == set(REFUSALS)


WANTED = (
    "answered", "repeat", "Cancelled", "DeadlineExceeded", "ComputeFailed", "Overloaded", "TimedOut", "BrokenOff", "OutOfStep",
    "NotReady", "InvalidRequest", "breaks", "version 1 goes", "version 2 with weights", "version 1 with weights 2",
)  # fmt: skip
