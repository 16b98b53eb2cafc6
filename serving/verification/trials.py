"""Runs of a file on random inputs of chosen sizes: what the proofs about rows and steps are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends.base import first_line
from serving.signature.spec import ModelSpec, Tensors
from serving.verification.hints import Shape, Unclear

Run = Callable[[Tensors, Sequence[str]], Tensors]  # in the file's own layout

ROWS = (3, 2, 1)  # numbers of rows that are tried; the proof wants at least 3
MOST_ELEMENTS = 20_000_000  # of one input in a trial
MOST_IDS = 2**20  # of a vocabulary that is found
SIZES = (5, 9, 24)  # sizes that every other free axis is tried with
SEED = 7
# Values that the rows are tried with: about 1; positive; of magnitudes from a thousandth to ten thousand, row by row.
KINDS = ("usual", "positive", "spread")
_WHOLE = {"usual": (1, 3), "positive": (0, 2), "spread": (0, 10)}  # whole numbers of each kind, the second left out


class Trials:
    """Runs of the file on random inputs of chosen sizes."""

    def __init__(self, stated: ModelSpec, inputs: Mapping[str, Shape], run: Run, values: Mapping[str, float]) -> None:
        self._dtypes = {tensor.name: tensor.dtype for tensor in stated.inputs}
        self._shapes = inputs
        self._outputs = [tensor.name for tensor in stated.outputs]
        self._run = run
        self._values = values
        self._generator = np.random.default_rng(SEED)
        self.ids: Mapping[str, int] = {}  # by input, how many there are to draw from

    def sent(
        self, rows: Mapping[str, int | None], count: int, size: int, kind: str = KINDS[0]
    ) -> dict[str, npt.NDArray[Any]]:
        """Random inputs of one of `KINDS`: `count` along the axes of the rows, `size` along every other free axis."""
        made = {}
        for name, shape in self._shapes.items():
            sizes = [size if s == -1 else s for s in shape]
            axis = rows[name]
            if axis is not None:
                sizes[axis] = count
            made[name] = self._array(name, sizes, kind)
            if kind == "spread" and axis is not None and made[name].dtype.kind == "f":
                factors = 10.0 ** np.linspace(-3, 4, count)
                made[name] *= factors.reshape([-1 if a == axis else 1 for a in range(len(sizes))]).astype(
                    made[name].dtype
                )
        return made

    def again(self, name: str, array: npt.NDArray[Any], axis: int, row: int) -> npt.NDArray[Any]:
        """The array with one row made anew."""
        changed = array.copy()
        place = (slice(None),) * axis + (row,)
        changed[place] = self._array(name, list(changed[place].shape))
        return changed

    def compute(self, sent: Tensors) -> Tensors:
        return self._run(sent, self._outputs)

    def answers(self, rows: Mapping[str, int | None] | None) -> Iterator[tuple[Tensors, Tensors]]:
        """Samples of several numbers of rows and sizes. Raises `Unclear` where a size that the file calls free fails."""
        free = [name for name, shape in self._shapes.items() if _free_beside(shape, rows[name] if rows else None)]
        axes: Mapping[str, int | None] = rows or dict.fromkeys(self._shapes)
        for count, size in itertools.product(ROWS if rows else (1,), SIZES if free else SIZES[:1]):
            sent = self.sent(axes, count, size)
            try:
                yield sent, self.compute(sent)
            except Exception as error:  # whatever a runtime raises
                raise Unclear(
                    f"the file does not take every size that it calls free: with {size} along those of {', '.join(free)} it "
                    f"says: {first_line(error)}; state the sizes that it takes with --shape NAME:SIZES, -1 where free"
                ) from error

    def found_ids(self, rows: Mapping[str, int | None]) -> dict[str, int]:
        """How many ids each input of whole numbers takes that has more than one a row: the lines of the table they lead to.

        Inputs that take any number, or another one for other sizes, as lengths do, are left out.
        """
        found = {}
        for name, shape in self._shapes.items():
            several = len(shape) > 1  # a row, or one row alone, may have more than one
            if self._dtypes[name].kind in "iu" and several and name not in self._values:
                first, second = (self._most_ids(name, self.sent(rows, ROWS[-1], size)) for size in SIZES[:2])
                if first == second > 0:
                    found[name] = first
        return found

    def _most_ids(self, name: str, sent: Tensors) -> int:
        """From which id on the file fails; 0 if it takes all, or none."""

        def takes(value: int) -> bool:
            try:
                self.compute({**sent, name: np.full_like(sent[name], value)})
            except Exception:  # noqa: BLE001 - whatever a runtime raises
                return False
            return True

        fails, limit = 1, min(MOST_IDS, int(np.iinfo(self._dtypes[name]).max))
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

    def _array(self, name: str, sizes: Sequence[int], kind: str = KINDS[0]) -> npt.NDArray[Any]:
        dtype = self._dtypes[name]
        if math.prod(sizes) > MOST_ELEMENTS:
            raise Unclear(
                f"the input {name} has too many free axes to be tried; state some sizes with --shape {name}:SIZES"
            )
        if name in self._values:
            return np.full(sizes, self._values[name], dtype)
        if not self._shapes[name]:
            raise Unclear(
                f"the input {name} is one value for all rows; say what to try the file with: --value {name}=..."
            )
        if name in self.ids:
            return self._generator.integers(0, self.ids[name], sizes).astype(dtype)
        if dtype.kind in "iu":
            return self._generator.integers(*_WHOLE[kind], sizes).astype(dtype)
        if dtype.kind == "b":
            return self._generator.integers(0, 2, sizes).astype(dtype)
        if dtype.kind == "f" and kind == "positive":
            return self._generator.uniform(0.1, 1, sizes).astype(dtype)
        if dtype.kind == "f":
            return self._generator.normal(0, 0.5, sizes).astype(dtype)
        raise Unclear(f"nothing can be tried on the input {name} of {dtype}; say what it holds: --value {name}=...")


def _free_beside(shape: Shape, axis: int | None) -> bool:
    return any(size == -1 and place != axis for place, size in enumerate(shape))
