"""Whatever happens at once, every request is answered exactly once and rightly. A seed that fails is printed.

python -m pytest tests/simulation --seeds 100000       many of them (make simulate SEEDS=100000)
python -m pytest tests/simulation --seed 4711          one of them again, with its history
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from serving.batching.computation import Outcome, Stateless
from serving.batching.pending import Piece
from serving.batching.policy import QueuePolicy
from tests.simulation.world import World

PARTS = 8  # of the seeds, so that several processes can run them side by side
MOST_SEEDS = 2000  # within which a planted fault is found


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """What is logged of backends that break on purpose costs more than the simulation."""
    logging.getLogger("serving").setLevel(logging.CRITICAL)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_request_is_answered_exactly_once(part: int, seeds: range, replayed: bool) -> None:
    for seed in seeds[part::PARTS]:
        world = World(seed)
        try:
            world.run()
        except BaseException as error:
            told = "\n".join(f"{at / 1e6:10.3f} ms  {what} {number}" for at, what, number in world.history)
            raise AssertionError(
                f"seed {seed} (again: pytest tests/simulation --seed {seed}): {error}\n{told}"
            ) from error
        if replayed:
            print(*(f"{at / 1e6:10.3f} ms  {what} {number}" for at, what, number in world.history), sep="\n")


@pytest.mark.parametrize("seed", range(0, 100, 7))
def test_a_seed_gives_the_same_history_again(seed: int) -> None:
    first, second = World(seed), World(seed)
    first.run()
    second.run()
    assert first.history == second.history


class Mixed(Stateless):
    """Gives every piece of a batch the answer of the first."""

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]:
        outcomes = super().run(pieces)
        return [outcomes[0]] * len(pieces)


class Forgetful(Stateless):
    """Computes the first piece and is silent about the others."""

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]:
        return super().run(pieces[:1])


class Uncut(Stateless):
    """Answers with the steps of the longest of a batch."""

    def run(self, pieces: Sequence[Piece]) -> Sequence[Outcome]:
        self._steps_axes = {}
        return super().run(pieces)


def promises_broken(world: Callable[[int], World]) -> Iterator[str]:
    """What is found, seed for seed, until somebody has seen enough."""
    for seed in range(MOST_SEEDS):
        try:
            world(seed).run()
        except AssertionError as error:
            yield str(error)


@pytest.mark.parametrize(("fault", "found"), [(Mixed, "got"), (Forgetful, ""), (Uncut, "")])
def test_a_planted_fault_is_found(fault: type[Stateless], found: str) -> None:
    """A simulation that finds nothing must be one that could."""
    assert any(found in said for said in promises_broken(lambda seed: World(seed, fault)))


@pytest.mark.parametrize(
    ("forgets", "found"),
    [
        ({"keeps_order": False}, "have left in the order"),
        ({"levels": 1, "level_queues": {}}, "it is served as"),
        ({"queue": QueuePolicy(delays=True), "level_queues": {}}, "though its time is up"),
        ({"max_queue_bytes": 10**9}, "bytes wait"),
        ({"queue": QueuePolicy(), "level_queues": {}}, "wait in level"),
    ],
    ids=["order", "levels", "timeouts", "bytes", "limits"],
)
def test_a_queue_that_forgets_a_promise_is_found(forgets: Mapping[str, object], found: str) -> None:
    assert any(found in said for said in promises_broken(lambda seed: World(seed, **forgets)))


def test_the_seeds_see_everything_that_may_happen() -> None:
    """A simulation in which nothing goes wrong would prove nothing."""
    seen = set[str]()
    for seed in range(150):
        world = World(seed)
        world.run()
        seen |= {what for _, what, _ in world.history}
    assert seen >= {
        "answered",
        "Cancelled",
        "DeadlineExceeded",
        "ComputeFailed",
        "Overloaded",
        "TimedOut",
        "breaks",
        "delayed",
        "goes",
        "serves",
    }
