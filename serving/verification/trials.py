"""Runs of a file on inputs of chosen sizes and values: what the proofs about rows and steps are made of."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends.base import Contents, first_line
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.verification import values
from serving.verification.hints import Hints, Shape, Unclear, value_for
from serving.verification.values import Holding, Kind

Run = Callable[[Tensors, Sequence[str]], Tensors]  # in the file's own layout
Rows = Mapping[str, int | None]  # by input the axis of the rows, None where it has none

ROWS = (3, 2, 1)  # numbers of rows that are tried; the proof wants at least 3
MOST_ELEMENTS = 20_000_000  # of one input in a trial
MOST_AT_A_GLANCE = 2**22
MASKED = 2  # axes of ids and their mask
MOST_IDS = 2**20  # of a vocabulary that is found
MOST_COUNTS = 2**12  # that a number which stands alone in its row is tried with
SIZES = (5, 9, 24)  # sizes that every other free axis is tried with
SEED = 7
USUAL = Kind()
NOTHING_SHOWN = Contents()


class Trials:
    """Runs of the file on random inputs of chosen sizes and kinds, `contents` of the file's own among them."""

    def __init__(
        self,
        stated: ModelSpec,
        inputs: Mapping[str, Shape],
        run: Run,
        hints: Hints,
        contents: Contents = NOTHING_SHOWN,
    ) -> None:
        self.tolerance = stated.tolerance
        self._shapes = inputs
        self._datatypes = {tensor.name: tensor.datatype for tensor in stated.inputs}
        self._outputs = [tensor.name for tensor in stated.outputs]
        self._run = run
        self._values = hints.values
        self._samples = hints.samples
        self._generator = np.random.default_rng(SEED)
        steps = not all(map(_one_a_row, inputs.values()))  # whether there is anything that a row could count
        self._holding = {
            tensor.name: Holding(
                dtype=tensor.dtype, texts=contents.texts, counts=steps and _one_a_row(inputs[tensor.name])
            )
            for tensor in stated.inputs
        }
        self.kinds = values.kinds(contents.constants)

    @property
    def sampled(self) -> bool:
        """Whether a person has given samples."""
        return bool(self._samples)

    @property
    def ids(self) -> Mapping[str, int]:
        """By input, how many lines the table has that its whole numbers lead to."""
        return {name: holding.ids for name, holding in self._holding.items() if holding.ids}

    @property
    def counts(self) -> Sequence[str]:
        """Inputs with one whole number a row that leads to no table: lengths, maybe."""
        return [
            name for name, each in self._holding.items() if each.counts and each.dtype.kind in "iu" and not each.ids
        ]

    def compute(self, sent: Tensors) -> Tensors:
        return self._run(sent, self._outputs)

    def attempt(self, sent: Tensors) -> Tensors | None:
        """The answers; None where the file refuses that, in whatever way."""
        try:
            return self.compute(sent)
        except Exception:  # noqa: BLE001 - whatever a runtime raises
            return None

    def takes(self, sent: Tensors) -> bool:
        """Whether the file answers that at all."""
        return self.attempt(sent) is not None

    # What is sent.

    def sent(
        self, rows: Rows, count: int, size: int, kind: Kind = USUAL, *, full: bool = False
    ) -> dict[str, npt.NDArray[Any]]:
        """`count` rows of a kind along the axes of the rows, `size` along every other free axis.

        No two are of equal length, or with `full` all steps of all of them are true, as a file that wants its rows in order
        of their lengths can take them.
        """
        lengths = [self._steps(rows, size)] * count if full else self.lengths(count, rows, size)
        shared = self.shared(rows, size, USUAL if kind.body == values.SAMPLED else kind, full=full)
        return self.together(rows, [self.row(rows, size, kind, true) for true in lengths], shared)

    def shared(self, rows: Rows, size: int, kind: Kind = USUAL, *, full: bool = True) -> dict[str, npt.NDArray[Any]]:
        """What all rows share."""
        steps = self._steps(rows, size)
        return {
            name: self._drawn(name, self._sizes(name, size), kind, steps if full else None, steps)
            for name, axis in rows.items()
            if axis is None
        }

    def lengths(self, count: int, rows: Rows, size: int) -> list[int]:
        """How many of the steps of each row are true: all different while there are enough of them."""
        steps = self._steps(rows, size)
        rounds = math.ceil(count / steps)
        return [int(n) for _ in range(rounds) for n in self._generator.permutation(steps) + 1][:count]

    def row(
        self, rows: Rows, size: int, kind: Kind | Mapping[str, Kind] = USUAL, true: int | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """One row of every input that has rows, without their axis; `kind` for all inputs, or for each its own."""
        if isinstance(kind, Kind) and kind.body == values.SAMPLED:
            return self._in_use(rows, size)
        steps = self._steps(rows, size)
        made = {}
        for name, axis in rows.items():
            if axis is not None:
                sizes = self._sizes(name, size)
                del sizes[axis]
                each = kind if isinstance(kind, Kind) else kind[name]
                if each.place in values.AT_STEPS and not self._has_steps(rows, name):
                    each = Kind(each.body)  # a state that is no number would hide what the steps do
                made[name] = self._drawn(name, sizes, each, true or steps, steps)
        return made

    def rows_in_use(self, rows: Rows, size: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """The rows of a person's samples, their free axes brought to `size` by leaving out or by repeating."""
        for sample in self._samples:
            count = next((sample[name].shape[axis] for name, axis in rows.items() if axis is not None), 0)
            for place in range(count):
                made = {}
                for name, axis in rows.items():
                    if axis is not None:
                        made[name] = np.take(_fitted(sample[name], self._sizes(name, size), axis), place, axis)
                yield made

    def _in_use(self, rows: Rows, size: int) -> dict[str, npt.NDArray[Any]]:
        """A row of a person's samples, drawn at random, its steps in another order: there may be one row alone."""
        there = list(self.rows_in_use(rows, size))
        order = self._generator.permutation(size)
        chosen = there[self._generator.integers(0, len(there))]
        return {
            name: next((np.take(array, order, axis) for axis, many in enumerate(array.shape) if many == size), array)
            for name, array in chosen.items()
        }

    def together(self, rows: Rows, those: Sequence[Tensors], shared: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Several rows as the file takes them, and what all of them share."""
        return {
            name: shared[name] if axis is None else np.stack([row[name] for row in those], axis)
            for name, axis in rows.items()
        }

    def again(self, rows: Rows, sent: Tensors, row: int, size: int, kind: Kind = USUAL) -> Tensors:
        """What was sent with one row made anew, in all inputs that have rows."""
        (true,) = self.lengths(1, rows, size)
        fresh = self.row(rows, size, kind, true)
        changed = dict(sent)
        for name, array in fresh.items():
            axis = rows[name]
            assert axis is not None
            changed[name] = sent[name].copy()
            changed[name][(slice(None),) * axis + (row,)] = array
        return changed

    def answers(self, rows: Rows | None) -> Iterator[tuple[Tensors, Tensors]]:
        """Samples of several numbers of rows and sizes. Raises `Unclear` where a size that the file calls free fails."""
        free = [name for name, shape in self._shapes.items() if _free_beside(shape, rows[name] if rows else None)]
        axes: Rows = rows or dict.fromkeys(self._shapes)
        for count, size in itertools.product(ROWS if rows else (1,), SIZES if free else SIZES[:1]):
            sent = self.sent(axes, count, size)
            if not self.takes(sent):
                sent = self.sent(axes, count, size, full=True)
            try:
                yield sent, self.compute(sent)
            except Exception as error:  # whatever a runtime raises
                raise Unclear(
                    f"the file does not take every size that it calls free: with {size} along those of {', '.join(free)} it "
                    f"says: {first_line(error)}; state the sizes that it takes with --shape NAME:SIZES, -1 where free"
                ) from error

    # What the numbers mean.

    def learn(self) -> None:
        """Finds out which inputs hold whole numbers, and how many there are, before anything is drawn for a proof.

        An input of floats holds whole numbers if it answers the same whatever is behind the point, as an Embedding of
        Keras 2 does, which casts. From which number on the file fails, and whether that is the same for two numbers of
        steps, tells the ids of a table from lengths.
        """
        alone: Rows = dict.fromkeys(self._shapes)
        self._learn_texts(alone)
        self._learn_flags(alone)
        self._learn_float_counts(alone)
        for name, holding in self._holding.items():
            if name in self._values or holding.dtype.kind not in "iuf":
                continue
            tried = [self.sent(alone, 1, size, Kind(values.POSITIVE), full=True) for size in SIZES[:2]]
            if holding.flags or (holding.counts and holding.dtype.kind == "f"):
                continue
            if holding.dtype.kind == "f" and not self._drops_fractions(name, tried[0]):
                continue
            first, second = (self._fails_from(name, sent) for sent in tried)
            self._holding[name] = dataclasses.replace(holding, whole=True, ids=first if first == second else 0)

    def _learn_texts(self, alone: Rows) -> None:
        """Finds out which inputs of strings take numbers alone, as a file does that casts them."""
        texts = [name for name, each in self._holding.items() if each.dtype.kind == "O" and name not in self._values]
        if not texts:
            return
        sent = {**self.sent(alone, 1, SIZES[0], full=True)}
        numbers = {name: np.full_like(sent[name], b"1") for name in texts}
        if not self.takes({**sent, **numbers}):
            return
        for name in texts:
            if not self.takes({**sent, **numbers, name: np.full_like(sent[name], b"word")}):
                self._holding[name] = dataclasses.replace(self._holding[name], numbers=True)

    def _learn_flags(self, alone: Rows) -> None:
        """Finds out which inputs take 0 and 1 alone, as a mask does whose sums are lengths: beside ones, not 2 and not -1."""
        maybe = [
            name
            for name, each in self._holding.items()
            if each.dtype.kind in "iuf" and not each.counts and name not in self._values and self._shapes[name]
        ]
        if len(self._holding) < 2 or not maybe:
            return
        sent = self.sent(alone, 1, SIZES[0], full=True)
        ones = {name: np.ones_like(sent[name]) for name in maybe}
        if not self.takes({**sent, **ones}):
            return
        for name in maybe:
            wrong = (2,) if self._holding[name].dtype.kind == "u" else (2, -1)
            if not any(self.takes({**sent, **ones, name: np.full_like(sent[name], value)}) for value in wrong):
                self._holding[name] = dataclasses.replace(self._holding[name], flags=True)

    def _learn_float_counts(self, alone: Rows) -> None:
        """Finds out which floats of which a row has one are lengths, and which are shares of the steps."""
        for name, holding in self._holding.items():
            if holding.dtype.kind != "f" or not holding.counts or name in self._values or not self._shapes[name]:
                continue
            sent = self.sent(alone, 1, SIZES[0], full=True)
            takes = {value: self.takes({**sent, name: np.full_like(sent[name], value)}) for value in (-1, 1, SIZES[0])}
            if not takes[-1] and any(takes.values()):
                self._holding[name] = dataclasses.replace(holding, whole=takes[SIZES[0]], shares=not takes[SIZES[0]])

    def _drops_fractions(self, name: str, sent: Tensors) -> bool:
        """Whether what is behind the point changes nothing, while what is before it does."""
        whole = self._generator.integers(1, 3, sent[name].shape).astype(sent[name].dtype)
        if whole.size < 2:
            return False
        try:
            base, more = (self.compute({**sent, name: whole + part}) for part in (0, np.asarray(0.25, whole.dtype)))
            other = self.compute({**sent, name: 3 - whole})
        except Exception:  # noqa: BLE001 - whatever a runtime raises: these are no whole numbers, or out of range
            return False
        return _same(base, more) and not _same(base, other)

    def _fails_from(self, name: str, sent: Tensors) -> int:
        """From which whole number on the file fails; 0 if it takes all, or none."""

        def takes(value: int) -> bool:
            return self.takes({**sent, name: np.full_like(sent[name], value)})

        holding = self._holding[name]
        limit = MOST_COUNTS if holding.counts else MOST_IDS
        if holding.dtype.kind in "iu":
            limit = min(limit, int(np.iinfo(holding.dtype).max))
        fails = 1
        while takes(fails):
            if fails > limit // 2:
                return 0
            fails *= 2
        if fails == 1:
            return 0
        works = fails // 2
        while fails - works > 1:
            middle = (works + fails) // 2
            works, fails = (middle, fails) if takes(middle) else (works, middle)
        return fails

    # Sizes and values of one input.

    def free_beside(self, rows: Rows) -> bool:
        """Whether some axis is free that is not one of the rows."""
        return any(_free_beside(shape, rows[name]) for name, shape in self._shapes.items())

    def _has_steps(self, rows: Rows, name: str) -> bool:
        """Whether a marker may stand at a step of an input: not in a state beside inputs of free steps. Counts go along."""
        beside = not self.free_beside(rows) or _free_beside(self._shapes[name], rows[name])
        return beside or self._holding[name].counts

    def may_be_mask(self, name: str) -> bool:
        """Whether it has several numbers a row, and fewer axes than another input, or no more than ids have."""
        shape, most = self._shapes[name], max(len(shape) for shape in self._shapes.values())
        return not self._holding[name].counts and (len(shape) < most or most <= MASKED)

    def affords(self, size: int) -> bool:
        """Whether so many along every free axis are few enough numbers for a moment."""
        return all(math.prod(self._sizes(name, size)) <= MOST_AT_A_GLANCE for name in self._shapes)

    def affords_rows(self, rows: Rows, count: int, size: int) -> bool:
        """The same of so many rows, with `size` along every other free axis."""
        for name, axis in rows.items():
            sizes = self._sizes(name, size)
            if axis is not None:
                sizes[axis] = count
            if math.prod(sizes) > MOST_AT_A_GLANCE:
                return False
        return True

    def _steps(self, rows: Rows, size: int) -> int:
        """What lengths are drawn up to: the size of free axes, else that of the first axis of a row."""
        if self.free_beside(rows):
            return size
        firsts = []
        for name, shape in self._shapes.items():
            sizes = [abs(s) for axis, s in enumerate(shape) if axis != rows[name]]
            firsts += sizes[:1]
        return max([1, *firsts])

    def _sizes(self, name: str, size: int) -> list[int]:
        return [size if s == -1 else s for s in self._shapes[name]]

    def _drawn(self, name: str, sizes: Sequence[int], kind: Kind, true: int | None, steps: int) -> npt.NDArray[Any]:
        holding = self._holding[name]
        if math.prod(sizes) > MOST_ELEMENTS:
            raise Unclear(
                f"the input {name} has too many free axes to be tried; state some sizes with --shape {name}:SIZES"
            )
        if name in self._values:
            return np.full(sizes, value_for(self._values[name], holding.dtype), holding.dtype)
        if not self._shapes[name]:
            raise Unclear(
                f"the input {name} is one value for all rows; say what to try the file with: --value {name}=..."
            )
        if holding.dtype.kind not in "fiubO":
            raise Unclear(
                f"nothing can be tried on the input {name} of {self._datatypes[name]}; say what it holds: --value {name}=..."
            )
        return values.draw(self._generator, holding, sizes, kind, true, steps)


def _one_a_row(shape: Shape) -> bool:
    """Whether a row, or all of them together, has one number of the input."""
    return math.prod(size for size in shape if size != -1) == 1 and sum(size == -1 for size in shape) <= 1


def _fitted(array: npt.NDArray[Any], sizes: Sequence[int], rows_axis: int) -> npt.NDArray[Any]:
    for axis, size in enumerate(sizes):
        if axis != rows_axis and array.shape[axis] != size:
            array = np.take(array, np.arange(size) % array.shape[axis], axis)
    return array


def _same(some: Tensors, other: Tensors) -> bool:
    return all(np.array_equal(some[name], other[name], equal_nan=some[name].dtype.kind == "f") for name in some)


def _free_beside(shape: Shape, axis: int | None) -> bool:
    return any(size == -1 and place != axis for place, size in enumerate(shape))
