"""Rows of batches that are computed again alone: which, when, and what comes of a difference."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from serving.batching.model import Watched as Asked
from serving.batching.pending import Pending
from serving.batching.watch import Watch, Watched
from serving.signature.tensors import Tensors
from serving.telemetry.counters import ModelMetrics
from tests.support.gated import Answer, GatedBackend, started


def differ(run: Callable[[Tensors], Tensors], row: Tensors, answered: Tensors) -> str:
    """As the server's, but exact."""
    return "" if np.array_equal(run(row)["y"], answered["y"]) else "apart"


class Watching:
    """A watch whose chances are said, and what it did."""

    def __init__(self, *chances: float, room: bool = True) -> None:
        self.metrics = ModelMetrics()
        self.waiting: list[Watched] = []
        self.stopped: list[str] = []
        drawn: Iterator[float] = iter(chances)
        self._room = room
        self.watch = Watch(
            "model 'm' version 1",
            0.5,
            differ,
            self.metrics,
            wait=self._wait,
            stop=self.stopped.append,
            chance=lambda: next(drawn),
        )

    def _wait(self, pending: Pending) -> bool:
        assert isinstance(pending, Watched)
        if self._room:
            self.waiting.append(pending)
        return self._room

    @property
    def counts(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.metrics.rows_watched.items() if count}


def answered(*rows: int) -> list[tuple[Pending, Tensors]]:
    """Requests of so many rows each, answered by the double of what they hold, which is the number of the request."""
    made = [Answer(number, rows=count).pending for number, count in enumerate(rows)]
    return [(pending, {"y": pending.inputs["x"] * 2}) for pending in made]


@pytest.mark.parametrize(("chance", "request_number"), [(0.0, 0), (0.34, 1), (0.99, 2)])
def test_one_row_of_a_batch_is_drawn_at_random(chance: float, request_number: int) -> None:
    watching = Watching(0.49, chance)
    watching.watch.look(answered(1, 1, 1), 3)
    (row,) = watching.waiting
    np.testing.assert_array_equal(row.inputs["x"], np.full((1, 2), request_number))
    np.testing.assert_array_equal(row.answered["y"], np.full((1, 2), 2 * request_number))


@pytest.mark.parametrize(
    ("rows", "chance"), [((1,), 0.0), ((1, 1), 0.5)], ids=["a row alone has no company", "the share is not met"]
)
def test_what_is_not_looked_at(rows: Sequence[int], chance: float) -> None:
    watching = Watching(chance, 0.0)
    watching.watch.look(answered(*rows), sum(rows))
    assert (watching.waiting, watching.counts) == ([], {})


def test_the_row_is_a_copy() -> None:
    """What it was cut out of may be many megabytes, and is let go."""
    watching = Watching(0, 0)
    batch = answered(2)
    watching.watch.look(batch, 2)
    (row,) = watching.waiting
    assert row.inputs["x"].base is None
    assert row.answered["y"].base is None


def test_no_room_is_counted() -> None:
    watching = Watching(0, 0, room=False)
    watching.watch.look(answered(1, 1), 2)
    assert watching.counts == {"dropped": 1}


def compared(watching: Watching, run: Callable[[Tensors], Tensors]) -> None:
    watching.watch.look(answered(1, 1), 2)
    watching.watch.compare(watching.waiting[-1], run)


def test_an_answer_that_is_the_same_alone() -> None:
    watching = Watching(0, 0.9)
    compared(watching, lambda inputs: {"y": inputs["x"] * 2})
    assert (watching.counts, watching.stopped, watching.watch.found) == ({"same": 1}, [], "")


def test_the_first_difference_stops_batching_and_is_the_last_that_is_looked_for() -> None:
    watching = Watching(0, 0.9, 0, 0.9)
    compared(watching, lambda inputs: {"y": inputs["x"] * 3})
    assert watching.counts == {"different": 1}
    (told,) = watching.stopped
    assert told.startswith(
        "rows of model 'm' version 1 touch each other: apart; from now on every request is computed alone"
    )
    assert watching.watch.found == told
    watching.watch.look(answered(1, 1), 2)
    assert len(watching.waiting) == 1


def test_a_row_that_cannot_be_computed_alone_says_nothing_and_is_counted() -> None:
    def fails(inputs: Tensors) -> Tensors:
        raise MemoryError

    watching = Watching(0, 0)
    compared(watching, fails)
    assert (watching.counts, watching.stopped) == ({"failed": 1}, [])


def test_a_model_that_mixes_rows_is_found_out_while_it_serves_and_computes_one_by_one_since() -> None:
    """Through queue and worker: the row comes after every request, and no longer is anybody in company."""
    backend = GatedBackend()
    model = started(backend, watched=Asked(1.0, differ))
    first, second, third = Answer(1), Answer(2), Answer(3)
    model.submit(first.pending)
    rows = [backend.begun.get(timeout=10)[0]]
    model.submit(second.pending)
    model.submit(third.pending)
    for _ in range(2):  # the first alone, and the others together
        backend.permits.put(None)
        rows.append(backend.begun.get(timeout=10)[0])
    assert rows == [1, 2, 1]
    assert [answer.wait() for answer in (first, second, third)] == [None] * 3
    backend.adds = 1.0  # the row that is computed alone now is answered otherwise
    later = [Answer(4), Answer(5)]
    for answer in later:
        model.submit(answer.pending)
    for _ in range(3):
        backend.permits.put(None)
    assert [backend.begun.get(timeout=10)[0] for _ in later] == [1, 1]
    assert [answer.wait() for answer in later] == [None, None]
    assert model.touching.startswith("rows of model 'm' version 1 touch each other")
    assert (model.metrics.rows_watched["different"], model.metrics.requests["success"]) == (1, 5)
    model.close()


def test_what_was_found_before_holds_from_the_start() -> None:
    backend = GatedBackend()
    model = started(backend, watched=Asked(1.0, differ, "found before"))
    assert model.touching == "found before"
    answers = [Answer(1), Answer(2), Answer(3)]
    for answer in answers:
        model.submit(answer.pending)
    for _ in answers:
        backend.permits.put(None)
    assert [backend.begun.get(timeout=10)[0] for _ in answers] == [1, 1, 1]
    assert [answer.wait() for answer in answers] == [None] * 3
    model.close()


def test_what_is_found_is_told() -> None:
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    backend = GatedBackend()
    model = started(
        backend, watched=Asked(1.0, lambda run, row, answered: "apart", told=lambda model, found: told.put(found))
    )
    first = Answer(1, rows=2)
    model.submit(first.pending)
    backend.permits.put(None)
    assert first.wait() is None
    assert told.get(timeout=10) == model.touching
    model.close()
