"""What is learnt from: sequences with their targets, how they are split, scaled and packed into batches.

Pure functions on numpy arrays, the same for every framework, so that one seed means the same batches in all of them.
Padding is made here, on the host, and no answer downstream may depend on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.config import LSTMConfig

Array = npt.NDArray[Any]

SMALLEST = 1e-30  # the least deviation that is divided by; float32 ends at 1e-38


class ExamplesError(ValueError):
    """Examples that contradict themselves or are too few for what is asked of them."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """`sequences` are float32 `[steps, features]` or int64 `[steps]`; `targets` has one entry for each of them.

    A target is an int64 class (`targets` is `[cases]`), float32 values (`[cases, outputs]`), or, one array for each
    case, float32 values per step (`[steps, outputs]`), NaN where a step has no target. Raises `ExamplesError` when
    numbers of cases or steps differ.
    """

    sequences: Sequence[Array]
    targets: Sequence[Array] | Array

    def __post_init__(self) -> None:
        if len(self.sequences) != len(self.targets):
            raise ExamplesError(f"{len(self.sequences)} sequences for {len(self.targets)} targets")
        if not len(self.sequences) or not all(map(len, self.sequences)):
            raise ExamplesError("there must be at least one sequence, and every sequence needs at least one step")
        if not isinstance(self.targets, np.ndarray) and self.lengths.tolist() != list(map(len, self.targets)):
            raise ExamplesError("targets per step need as many steps as their sequence")

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of steps of each sequence, `[cases]`."""
        return np.array([len(sequence) for sequence in self.sequences], np.int64)

    def select(self, indices: npt.NDArray[np.int64]) -> Examples:
        """The cases at `indices`, in that order."""
        if isinstance(self.targets, np.ndarray):
            targets: Sequence[Array] | Array = self.targets[indices]
        else:
            targets = [self.targets[i] for i in indices]
        return Examples([self.sequences[i] for i in indices], targets)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows padded to the longest: `x`, `lengths` as a network takes them; `targets` `[rows, ...]`, 0 in the padding."""

    x: Array
    lengths: npt.NDArray[np.int64]
    targets: Array


def pad(sequences: Sequence[Array]) -> Array:
    """`[rows, steps, ...]`, zeros behind each sequence's end."""
    padded = np.zeros((len(sequences), max(map(len, sequences)), *sequences[0].shape[1:]), sequences[0].dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded


def to_batch(examples: Examples) -> Batch:
    """All of `examples` as one batch."""
    targets = examples.targets if isinstance(examples.targets, np.ndarray) else pad(examples.targets)
    return Batch(pad(examples.sequences), examples.lengths, targets)


def batches(examples: Examples, rows: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Every case once, in a random order in which similar lengths share a batch, so that little is padded."""
    order = rng.permutation(len(examples))
    window = 8 * rows  # the cases among which neighbours in length are sought: wide is lean, narrow is random
    cuts = []
    for start in range(0, len(order), window):
        indices = order[start : start + window]
        indices = indices[np.argsort(examples.lengths[indices], kind="stable")]
        cuts += [indices[i : i + rows] for i in range(0, len(indices), rows)]
    for cut in rng.permutation(len(cuts)):
        yield to_batch(examples.select(cuts[cut]))


def in_order(examples: Examples, rows: int) -> Iterator[Batch]:
    """Every case once, in the order in which they stand."""
    for start in range(0, len(examples), rows):
        yield to_batch(examples.select(np.arange(start, min(start + rows, len(examples)))))


def split(examples: Examples, share: float, rng: np.random.Generator) -> tuple[Examples, Examples]:
    """(rest, held out): about `share` of the cases is held out at random, of every class alike if targets are classes.

    Raises `ExamplesError` when a part would be empty or a class has fewer than two cases.
    """
    classes = np.asarray(examples.targets) if is_classes(examples) else np.zeros(len(examples), np.int64)
    held_out: list[int] = []
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        if len(members) < 2:
            raise ExamplesError(f"class {label} has a single case; one to learn from and one to hold out are needed")
        held_out += members[: max(1, min(len(members) - 1, round(share * len(members))))].tolist()
    chosen = np.zeros(len(examples), np.bool_)
    chosen[held_out] = True
    return examples.select(np.flatnonzero(~chosen)), examples.select(np.flatnonzero(chosen))


def is_classes(examples: Examples) -> bool:
    """Whether the targets are classes, not values."""
    return isinstance(examples.targets, np.ndarray) and examples.targets.dtype == np.int64


def scaling(config: LSTMConfig, examples: Examples) -> Mapping[str, npt.NDArray[np.float32]]:
    """Mean and standard deviation over all true steps: the arrays `input.*` and `output.*` of a checkpoint.

    Targets that are NaN do not count. What never changes gets the scale 1, so that it becomes 0 and not a division by
    zero; what changes by less than a millionth of its mean, which float32 can hardly tell, counts as never changing.
    """
    statistics = {}
    if config.input == "features":
        statistics["input"] = np.concatenate(list(examples.sequences))
    if config.head != "classification":
        targets = examples.targets
        statistics["output"] = targets if isinstance(targets, np.ndarray) else np.concatenate(list(targets))
    scales = {}
    for name, values in statistics.items():
        mean: npt.NDArray[np.float64] = np.nanmean(values, axis=0, dtype=np.float64)
        deviation: npt.NDArray[np.float64] = np.nanstd(values, axis=0, dtype=np.float64)
        changes = deviation > np.maximum(1e-6 * np.abs(mean), SMALLEST)
        scales[f"{name}.mean"] = mean.astype(np.float32)
        scales[f"{name}.scale"] = np.where(changes, deviation, 1.0).astype(np.float32)
    return scales


def with_noise(examples: Examples, deviation: npt.NDArray[np.float32], rng: np.random.Generator) -> Examples:
    """The same cases with Gaussian noise on their features, of `deviation` `[features]` in raw units; not for tokens."""
    noisy = [s + (deviation * rng.standard_normal(s.shape)).astype(np.float32) for s in examples.sequences]
    return Examples(noisy, examples.targets)
