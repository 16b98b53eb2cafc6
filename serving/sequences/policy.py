"""How long sequences live, how many, and what becomes of them: plain data, decided in `serving.repository.stateful`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

GIB = 1024**3
SECOND_NS = 1_000_000_000

# What becomes of the sequences of a version that goes.
DRAIN, RESTART, CARRY_SAME_WEIGHTS, CARRY_SAME_SHAPES = "drain", "restart", "carry_same_weights", "carry_same_shapes"
ON_REMOVAL = (DRAIN, RESTART, CARRY_SAME_WEIGHTS, CARRY_SAME_SHAPES)


def carries(rule: str, *, same_weights: bool) -> bool:
    """Whether a state of the same shapes goes over to another version by this rule, one of `ON_REMOVAL`."""
    return rule == CARRY_SAME_SHAPES or (rule == CARRY_SAME_WEIGHTS and same_weights)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequencePolicy:
    """What holds for the sequences of a model.

    One that has had no step for `idle_ns` ends; 0 lets it live for ever. At most `max_sequences` live at once, whose states take
    at most `max_state_bytes`, answers that are kept not counted. The last `window` answers of a numbered one are kept, and for
    `tombstone_ns` after its end too. In a full house a new one waits `start_timeout_ns`, 0 for as long as it takes; where
    it `evicts`, the one that has been idle longest goes instead, if that is `min_idle_ns`. `on_removal` is one of `ON_REMOVAL`;
    a version that goes waits at most `drain_ns` for its sequences.
    """

    idle_ns: int = 600 * SECOND_NS
    max_sequences: int = 100_000
    max_state_bytes: int = GIB
    window: int = 5
    tombstone_ns: int = 60 * SECOND_NS
    start_timeout_ns: int = 0
    evicts: bool = False
    min_idle_ns: int = 60 * SECOND_NS
    on_removal: str = DRAIN
    drain_ns: int = 60 * SECOND_NS


@dataclasses.dataclass(frozen=True)
class StateTensor:
    """What `output` gives after a step is what `input` takes at the next; `shape` is that of one row, without the axis of rows.

    `initial` is what a fresh sequence begins with, of that shape.
    """

    input: str
    output: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    initial: npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """The whole state of one sequence, and the digest of the weights that it means something to."""

    tensors: Sequence[StateTensor]
    weights_sha256: str = ""

    @property
    def bytes_each(self) -> int:
        """What the state of one sequence takes."""
        return sum(tensor.initial.nbytes for tensor in self.tensors)

    @property
    def shapes(self) -> Mapping[str, tuple[str, str, tuple[int, ...]]]:
        """What two versions must agree on for a state to be carried over by its shapes alone."""
        return {tensor.input: (tensor.output, tensor.dtype.str, tensor.shape) for tensor in self.tensors}
