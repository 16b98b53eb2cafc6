"""Slots for states: which is lent, what lies in it, and when its memory is nobody's any more."""

from __future__ import annotations

import numpy as np
import pytest

from serving.sequences.policy import StateTensor
from serving.sequences.pool import BLOCK, Pool

WIDE = 4096 // 8  # numbers of 8 bytes, so that the states of a block are whole pages


def tensor(name: str = "h", datatype: str = "f8", shape: tuple[int, ...] = (WIDE,)) -> StateTensor:
    dtype = np.dtype(datatype)
    return StateTensor(name, f"{name}_next", dtype, shape, np.zeros(shape, dtype))


def lent(pool: Pool, count: int) -> list[int | None]:
    return [pool.lend() for _ in range(count)]


def test_the_lowest_slot_is_lent_first() -> None:
    pool = Pool([tensor()], 5)
    assert lent(pool, 4) == [0, 1, 2, 3]
    for slot in (2, 0, 3):
        pool.take_back(slot)
    assert (pool.used, pool.lent) == (1, 4)
    assert lent(pool, 5) == [0, 2, 3, 4, None]
    assert (pool.used, pool.lent) == (5, 5)


def test_a_pool_that_is_empty_again_lends_as_before() -> None:
    pool = Pool([tensor()], 3)
    for _ in range(3):
        slots = lent(pool, 4)
        assert slots == [0, 1, 2, None]
        for slot in slots[:3]:
            pool.take_back(slot)  # type: ignore[arg-type]
        assert pool.used == 0


@pytest.mark.parametrize(
    ("datatype", "shape"), [("f4", (2, 3)), ("f8", ()), ("i8", (1,)), ("?", (4,)), ("u1", (3,)), ("f2", (2, 1, 2))]
)
def test_states_come_back_in_the_order_of_the_slots_asked_for(datatype: str, shape: tuple[int, ...]) -> None:
    pool = Pool([tensor("h", datatype, shape), tensor("other", "i4", (2,))], 10)
    lent(pool, 6)
    states = (np.arange(6 * max(1, np.prod(shape))) % 2).astype(datatype).reshape(6, *shape)
    pool.scatter("h", np.array([5, 0, 3, 1, 4, 2]), states)
    found = pool.gather("h", np.array([2, 5, 0]))
    assert found.dtype == np.dtype(datatype)
    assert np.array_equal(found, states[[5, 0, 1]])
    assert not pool.gather("other", np.arange(6)).any()


def test_what_was_gathered_is_a_copy() -> None:
    pool = Pool([tensor()], 2)
    pool.scatter("h", np.array([0]), np.ones((1, WIDE)))
    before = pool.gather("h", np.array([0]))
    pool.scatter("h", np.array([0]), np.full((1, WIDE), 2.0))
    assert (before == 1).all()


def test_memory_of_a_block_that_nobody_uses_is_given_back_and_of_the_first_is_kept() -> None:
    """Pages that were given back read as zeros; nothing else shows it from within."""
    pool = Pool([tensor()], 2 * BLOCK + 5)
    slots = np.array(lent(pool, 2 * BLOCK + 5))
    pool.scatter("h", slots, np.ones((len(slots), WIDE)))
    first, second, last = slots[:BLOCK], slots[BLOCK : 2 * BLOCK], slots[2 * BLOCK :]

    def full(of: object) -> bool:
        return bool((pool.gather("h", of) == 1).all())  # type: ignore[arg-type]

    for slot in second[:-1]:
        pool.take_back(int(slot))
    assert full(second), "one of them is used"
    pool.take_back(int(second[-1]))
    assert not pool.gather("h", second).any()
    assert full(first)
    assert full(last)
    for slot in (*first, *last):
        pool.take_back(int(slot))
    assert full(first), "one begins again at once in the first"
    assert not pool.gather("h", last).any()
    assert pool.lend() == 0


def test_address_space_for_many_costs_no_memory() -> None:
    pool = Pool([tensor()], 10_000_000)  # 40 GB
    assert pool.lend() == 0
    pool.scatter("h", np.array([0]), np.ones((1, WIDE)))
    assert pool.gather("h", np.array([0])).sum() == WIDE
