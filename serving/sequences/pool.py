"""The states of many sequences, each in the slot that it was lent: gathered into a batch, and scattered back, by index.

Address space for all of them is reserved at once and costs nothing; memory comes as slots are first used, and a block of slots
that nobody uses any more gives its memory back. So nothing is ever copied to grow, and one index reaches every slot.
"""

from __future__ import annotations

import heapq
import math
import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.sequences.policy import StateTensor

BLOCK = 1024  # slots whose memory is given back together
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux's value, which Python names from 3.13 on

Array = npt.NDArray[Any]


class Pool:
    """Slots 0 to `capacity`-1 for states of these tensors. Whoever uses it guards it."""

    def __init__(self, tensors: Sequence[StateTensor], capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._free: list[
            int
        ] = []  # a heap, below `_next`: the lowest is lent first, so that blocks at the end get free
        self._next = 0
        self._in_block = [0] * (capacity // BLOCK + 1)
        self._memory = {t.input: mmap.mmap(-1, max(1, capacity * t.initial.nbytes), flags=_FLAGS) for t in tensors}
        self._arrays: Mapping[str, Array] = {
            t.input: np.ndarray((capacity, *t.shape), t.dtype, self._memory[t.input]) for t in tensors
        }

    @property
    def lent(self) -> int:
        """No slot from here on has ever been lent."""
        return self._next

    def lend(self) -> int | None:
        """A free slot, whose content means nothing; None if there is none."""
        if self._free:
            slot = heapq.heappop(self._free)
        elif self._next < self.capacity:
            slot = self._next
            self._next += 1
        else:
            return None
        self.used += 1
        self._in_block[slot // BLOCK] += 1
        return slot

    def take_back(self, slot: int) -> None:
        """A slot is free again."""
        heapq.heappush(self._free, slot)
        self.used -= 1
        block = slot // BLOCK
        self._in_block[block] -= 1
        if block and not self._in_block[block]:
            for name, array in self._arrays.items():
                _give_back(self._memory[name], block * BLOCK * array[:1].nbytes, BLOCK * array[:1].nbytes)

    def gather(self, name: str, slots: Array) -> Array:
        """The states in these slots, a copy, in their order."""
        return self._arrays[name].take(slots, axis=0)

    def put(self, name: str, slot: int, state: Array) -> None:
        """Writes the state of one slot."""
        self._arrays[name][slot] = state

    def scatter(self, name: str, slots: Array, states: Array) -> None:
        """Writes states into these slots, of which none occurs twice."""
        self._arrays[name][slots] = states


_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE


def _give_back(memory: mmap.mmap, begin: int, size: int) -> None:
    """The whole pages within are nobody's any more."""
    first = math.ceil(begin / mmap.PAGESIZE) * mmap.PAGESIZE
    last = min(begin + size, len(memory)) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        memory.madvise(mmap.MADV_DONTNEED, first, last - first)
