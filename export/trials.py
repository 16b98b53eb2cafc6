"""What an export is tried on: real samples and random rows, of many lengths, with and without state, padded with junk.

The padding is part of a trial. Whatever lies behind a row's length, NaN, huge numbers, ids that no vocabulary has, must
not move one bit of what the trained model answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.checkpoint import Checkpoint
from models.config import LSTMConfig

Array = npt.NDArray[Any]

ROWS = (1, 2, 7, 64)
STEPS = (1, 5, 24)
SEED = 20240229
GOLDEN_ROWS = 8  # at most so many rows go into golden.npz, which travels with every version

_JUNK: dict[str, tuple[float, ...]] = {"features": (np.nan, 1e30, 0.0), "tokens": (-1, 2**40, 0)}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One batch in the canonical signature; `name` says what is special about it."""

    name: str
    inputs: dict[str, Array]

    @property
    def golden(self) -> bool:
        """Whether it is small enough to travel with the version."""
        return len(self.inputs["lengths"]) <= GOLDEN_ROWS


def make(checkpoint: Checkpoint) -> list[Trial]:
    """The same trials for the same checkpoint. Random rows are spread as the training data was."""
    config, generator = checkpoint.config, np.random.default_rng(SEED)
    samples = checkpoint.samples[:GOLDEN_ROWS]
    trials = [_trial(checkpoint, "samples", samples, 0, False, generator)] if samples else []
    # Every number of rows meets every kind of junk, every greatest length and both kinds of state somewhere.
    for position, rows in enumerate(ROWS):
        for turn, steps in enumerate(STEPS):
            junk, state = (position + turn) % len(_JUNK[config.input]), (position + turn) % 2 == 1
            full = turn == position % len(STEPS)
            lengths = np.full(rows, steps) if full else generator.integers(1, steps + 1, rows)
            sequences = [_random_sequence(checkpoint, int(length), generator) for length in lengths]
            trials.append(_trial(checkpoint, "random", sequences, junk, state, generator, steps))
    return trials


def pieces(trial: Trial) -> Iterator[dict[str, Array]]:
    """`x` and `lengths` of a trial without padding, cut into pieces of 1, 2, 3, ... steps; state is the caller's."""
    x = trial.inputs["x"]
    begin, size = 0, 1
    while begin < x.shape[1]:
        piece = x[:, begin : begin + size]
        yield {"x": piece, "lengths": np.full(len(x), piece.shape[1], np.int64)}
        begin, size = begin + size, size + 1


def padded(trial: Trial) -> bool:
    """Whether some row is shorter than the batch."""
    return bool((trial.inputs["lengths"] < trial.inputs["x"].shape[1]).any())


def _trial(
    checkpoint: Checkpoint,
    source: str,
    sequences: Sequence[Array],
    junk: int,
    state: bool,
    generator: np.random.Generator,
    steps: int = 0,
) -> Trial:
    config = checkpoint.config
    filler = _JUNK[config.input][junk]
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    longest = max(steps, int(lengths.max()))
    tail = () if config.input == "tokens" else (config.features,)
    x = np.full((len(sequences), longest, *tail), filler, np.int64 if config.input == "tokens" else np.float32)
    for row, sequence in zip(x, sequences, strict=True):
        row[: len(sequence)] = sequence
    shape = (len(sequences), config.layers * config.directions, config.hidden)
    h0, c0 = ((generator.uniform(-0.5, 0.5, shape) if state else np.zeros(shape)).astype(np.float32) for _ in range(2))
    words = [source, f"{len(sequences)} rows of at most {longest} steps", "from a state" if state else "from zero"]
    if (lengths < longest).any():
        words.append(f"padded with {filler:g}")
    return Trial(", ".join(words), {"x": x, "lengths": lengths, "h0": h0, "c0": c0})


def _random_sequence(checkpoint: Checkpoint, length: int, generator: np.random.Generator) -> Array:
    """[steps, features] float32 of the training data's mean and scale, or [steps] int64 ids."""
    config: LSTMConfig = checkpoint.config
    if config.input == "tokens":
        return generator.integers(0, config.vocabulary, length)
    mean, scale = checkpoint.weights["input.mean"], checkpoint.weights["input.scale"]
    return (generator.normal(size=(length, config.features)) * scale + mean).astype(np.float32)
