"""Which calls are computed aside, and that it makes no other difference to whoever has asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from serving.batching import aside
from serving.batching.aside import Aside
from serving.signature.tensors import Tensors
from tests.support.threads import HandClock, beside

MS = 1_000_000
LONG_MS = aside.LONG_NS // MS


class Takes:
    """A backend whose next call takes so many ms, and that keeps on which thread it was asked."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.milliseconds = 0
        self.error: Exception | None = None
        self.threads: list[int] = []
        self.closed_on = 0

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        self.threads.append(threading.get_ident())
        self.clock.now += self.milliseconds * MS
        if self.error:
            raise self.error
        return dict.fromkeys(outputs, inputs["x"] + 1)

    def close(self) -> None:
        self.closed_on = threading.get_ident()


@pytest.fixture
def backend() -> Takes:
    return Takes(HandClock())


@pytest.fixture
def one(backend: Takes) -> Iterator[Aside]:
    made = Aside(backend, backend.clock)
    yield made
    made.close()


def was_aside(one: Aside, backend: Takes, size: int, milliseconds: int) -> bool:
    """Whether a call of such a size, that takes so long, was computed on another thread."""
    backend.milliseconds = milliseconds
    answer = one.run({"x": np.zeros((size, 1), np.float32)}, ["y"])
    assert answer["y"].tolist() == [[1]] * size
    return backend.threads[-1] != threading.get_ident()


SHORT, LONG = LONG_MS - 1, LONG_MS


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([(4, SHORT), (4, SHORT)], [False, False]),
        ([(4, LONG), (4, LONG)], [False, True]),  # the first is how it is learned
        (
            [(4, LONG), (9, LONG), (3, SHORT)],
            [False, True, False],
        ),  # what is larger is long, too; smaller ones need not be
        ([(4, LONG), (3, LONG), (3, LONG)], [False, False, True]),  # the border goes down
        ([(4, LONG), (4, SHORT), (4, SHORT)], [False, True, False]),  # the first call makes what later ones find there
        (
            [(4, SHORT), (3, LONG), (3, LONG), (3, LONG)],
            [False, False, False, True],
        ),  # others took the cores, or it is so
        ([(4, SHORT), (9, LONG), (6, SHORT), (9, LONG), (6, SHORT)], [False, False, False, True, False]),
    ],
)
def test_long_calls_are_known_by_their_size(
    calls: Sequence[tuple[int, int]], expected: Sequence[bool], one: Aside, backend: Takes
) -> None:
    assert [was_aside(one, backend, *call) for call in calls] == expected
    assert len(set(backend.threads)) <= 2, "one thread for all that is long"


@pytest.mark.parametrize(("size", "milliseconds"), [(1, 0), (1, LONG), (9, SHORT)])
def test_a_shadow_is_always_aside(size: int, milliseconds: int, backend: Takes) -> None:
    one = Aside(backend, backend.clock, always=True)
    assert all(was_aside(one, backend, size, milliseconds) for _ in range(3))
    one.close()


@pytest.mark.parametrize("always", [True, False])
def test_an_error_is_raised_where_it_was_asked_and_nothing_is_learned_of_it(always: bool, backend: Takes) -> None:
    one = Aside(backend, backend.clock, always=always)
    backend.error, backend.milliseconds = RuntimeError("it is broken"), LONG
    with pytest.raises(RuntimeError, match="it is broken"):
        one.run({"x": np.zeros((4, 1))}, ["y"])
    backend.error = None
    assert was_aside(one, backend, 4, SHORT) is always
    one.close()


def test_it_is_closed_by_whoever_owns_it_and_its_thread_ends(backend: Takes) -> None:
    one = Aside(backend, backend.clock, always=True)
    before = threading.active_count()
    assert was_aside(one, backend, 1, 0)
    assert threading.active_count() == before + 1
    one.close()
    assert backend.closed_on == threading.get_ident()
    assert threading.active_count() == before


def test_a_backend_that_hangs_keeps_nobody_else_from_computing(backend: Takes) -> None:
    class Hangs(Takes):
        goes_on = threading.Event()

        def run(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
            assert self.goes_on.wait(20)
            return super().run(inputs, outputs)

    clock = HandClock()
    hanging, other = Aside(Hangs(clock), clock, always=True), Aside(backend, backend.clock, always=True)
    answer = beside(lambda: hanging.run({"x": np.zeros((1, 1))}, ["y"]))
    assert was_aside(other, backend, 1, 0)
    Hangs.goes_on.set()
    assert answer.get(timeout=10)["y"].tolist() == [[1]]
    hanging.close()
    other.close()
