"""What can be found out about a file that someone else has exported: its state, and where the rows are.

Names and shapes are read from the file; that rows do not touch each other is proved by running it: what happens to one row
along the axis of the rows must not move the answer of another. Nothing is guessed. Where the file leaves a choice, `Unclear`
says which, and what to say to settle it. A free axis alone proves nothing, since the steps of a sequence are free as
well; but a step does move the answers of those behind it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends.base import first_line
from serving.backends.rows_first import from_file
from serving.errors import RepositoryError
from serving.signature.spec import DTYPES, ModelSpec, StatePair, Tensors, TensorSpec
from serving.signature.stated import Stated
from serving.verification.golden import Sample

Shape = tuple[int, ...]
Run = Callable[[Tensors, Sequence[str]], Tensors]  # in the file's own layout

ROWS = (3, 2, 1)  # numbers of rows that are tried; the proof wants at least 3
COMPANY = 8  # rows of a batch in which each must be answered as it is alone
MOST_READINGS = 256
MOST_ELEMENTS = 20_000_000  # of one input in a trial
MOST_IDS = 2**20  # of a vocabulary that is found
SIZES = (5, 9, 24)  # sizes that every other free axis is tried with
TOLERANCE = 1e-5
SEED = 7
# Values that the rows are tried with: about 1; positive; of magnitudes from a thousandth to ten thousand, row by row.
KINDS = ("usual", "positive", "spread")
_WHOLE = {"usual": (1, 3), "positive": (0, 2), "spread": (0, 10)}  # whole numbers of each kind, the second left out

# What is left out when the names of a state's input and output are compared.
_PHASES = frozenset(
    ("0", "1", "n", "t", "in", "out", "input", "output", "new", "next", "prev", "previous", "init", "initial", "final",
     "last", "current", "updated")
)  # fmt: skip
_SHORT = {"h0": "h", "hn": "h", "ht": "h", "hx": "h", "hy": "h", "c0": "c", "cn": "c", "ct": "c", "cx": "c", "cy": "c"}


class Unclear(RepositoryError):
    """The file leaves something open that must not be guessed; the message names what settles it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hints:
    """What a person says about a file. All of it is proved, none of it believed.

    `shapes` replaces what the file states of an input, in its own layout, -1 where free. `values` are what an input holds
    in every trial. `rows` is the axis of the rows of an input, None for one that all rows share. `state` pairs inputs
    with outputs, and empty says that there is none; None leaves it to the names.
    """

    shapes: Mapping[str, Shape] = dataclasses.field(default_factory=dict)
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rows: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    state: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Findings:
    """The specification of the file, and samples in our layout with the file's own answers."""

    spec: ModelSpec
    samples: Sequence[Sample]


def unproved(inputs: Mapping[str, Stated], outputs: Mapping[str, Stated], digest: str = "") -> ModelSpec:
    """A specification that claims no more than the file states: shapes as they are, one row at a time.

    Raises `Unclear` where the file does not state a datatype or the rank of a shape.
    """

    def tensors(stated: Mapping[str, Stated]) -> tuple[TensorSpec, ...]:
        made = []
        for name, (datatype, shape) in stated.items():
            if datatype is None or shape is None:
                raise Unclear(f"nothing says of what datatype and shape {name} is")
            if not name or not name.isprintable():
                raise RepositoryError(f"a tensor has the name {name!a}, which no client could write; rename it")
            if datatype not in DTYPES:
                raise RepositoryError(f"{name} is of the datatype {datatype}, which is not served")
            made.append(TensorSpec(name, datatype, (1, *(size if size > 0 else -1 for size in shape)), None))
        return tuple(made)

    return ModelSpec(
        inputs=tensors(inputs),
        outputs=tensors(outputs),
        lengths=None,
        state=(),
        streamable=False,
        tolerance=TOLERANCE,
        weights_sha256=digest,
        batched=False,
        state_advertised=True,
    )


def inspect(stated: ModelSpec, run: Run, hints: Hints) -> Findings:
    """What holds of the file that `stated` (of `unproved`) describes and `run` computes.

    Raises `Unclear` where a person has to decide, and `RepositoryError` for a hint that does not fit the file.
    """
    _check_hints(stated, hints)
    inputs = {tensor.name: hints.shapes.get(tensor.name, tensor.file_shape) for tensor in stated.inputs}
    trials = _Trials(stated, inputs, run, hints.values)
    state = _state(stated, inputs, hints)
    rows = _rows_axes(trials, inputs, hints)
    trials.ids = trials.found_ids(rows or dict.fromkeys(inputs))
    answers = list(trials.answers(rows))
    specs = _Specs(stated, inputs, rows, answers)
    spec = dataclasses.replace(
        stated,
        inputs=specs.inputs(),
        outputs=specs.outputs(),
        state=state,
        streamable=bool(state),
        batched=rows is not None,
        vocabulary=trials.ids.get(stated.inputs[0].name, 0),
    )
    by_name = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    samples = []
    for sent, answer in answers:
        count = _count(sent, rows)
        given = {name: _for_rows(array, by_name[name], count) for name, array in sent.items()}
        samples.append(Sample(given, {name: from_file(array, by_name[name]) for name, array in answer.items()}))
    return Findings(spec, samples)


def _count(sent: Tensors, rows: Mapping[str, int | None] | None) -> int:
    """How many rows there are in what was sent."""
    return next((sent[name].shape[axis] for name, axis in (rows or {}).items() if axis is not None), 1)


def _for_rows(array: npt.NDArray[Any], tensor: TensorSpec, rows: int) -> npt.NDArray[Any]:
    ours = from_file(array, tensor)
    return np.repeat(ours, rows, axis=0) if tensor.rows_axis is None else ours


def _check_hints(stated: ModelSpec, hints: Hints) -> None:
    inputs = {tensor.name: tensor for tensor in stated.inputs}
    outputs = {tensor.name for tensor in stated.outputs}
    for name in (*hints.shapes, *hints.values, *hints.rows, *(hints.state or ())):
        if name not in inputs:
            raise RepositoryError(f"there is no input {name!r}; the file has {', '.join(inputs)}")
    for name in (hints.state or {}).values():
        if name not in outputs:
            raise RepositoryError(f"there is no output {name!r}; the file has {', '.join(sorted(outputs))}")
    for name, shape in hints.shapes.items():
        known = inputs[name].file_shape
        if len(shape) != len(known) or any(k not in (-1, s) for s, k in zip(shape, known, strict=True)):
            raise RepositoryError(f"the shape {list(shape)} of {name} does not fit the file's, {list(known)}")
    for name, axis in hints.rows.items():
        if axis is not None and not 0 <= axis < len(inputs[name].file_shape):
            raise RepositoryError(f"{name} has no axis {axis}; its shape is {list(inputs[name].file_shape)}")


def _state(stated: ModelSpec, inputs: Mapping[str, Shape], hints: Hints) -> tuple[StatePair, ...]:
    """Pairs of an input and an output that hold the same state before and after, by their names and shapes."""
    if hints.state is not None:
        by_name = {tensor.name: tensor for tensor in stated.outputs}
        kinds = {tensor.name: tensor.datatype for tensor in stated.inputs}
        if len(set(hints.state.values())) < len(hints.state):
            raise RepositoryError(f"one output is named as the next value of two inputs: {hints.state}")
        for before, after in hints.state.items():
            shape = by_name[after].file_shape
            if kinds[before] != by_name[after].datatype or not _may_be(shape, inputs[before]):
                raise RepositoryError(
                    f"{after} cannot be the next value of {before}: it is {by_name[after].datatype} {list(shape)}, and that is "
                    f"{kinds[before]} {list(inputs[before])}"
                )
        return tuple(StatePair(before, after) for before, after in hints.state.items())
    pairs = []
    for into in stated.inputs:
        key = _key(into.name)
        rivals = [tensor.name for tensor in stated.inputs if key and _key(tensor.name) == key]
        matching = [
            tensor.name
            for tensor in stated.outputs
            if key
            and _key(tensor.name) == key
            and tensor.datatype == into.datatype
            and _may_be(tensor.file_shape, inputs[into.name])
        ]
        if len(matching) > 1 or (matching and len(rivals) > 1):
            raise Unclear(
                f"the names leave open which output is the next value of which input: inputs {', '.join(rivals)}, outputs "
                f"{', '.join(matching)}; say it with --state INPUT=OUTPUT for each pair, or --state none"
            )
        if matching:
            pairs.append(StatePair(into.name, matching[0]))
    return tuple(pairs)


def _key(name: str) -> str:
    """What a name is about, without the words for before and after: h_in, h0, hn and new_h are all `h`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    parts = [part for part in re.split(r"[^a-z0-9]+", words) if part not in _PHASES and part]
    joined = "_".join(parts)
    return _SHORT.get(joined, re.sub(r"_?(in|out|n|0)$", "", joined) if len(joined) > 3 else joined)


def _may_be(shape: Shape, other: Shape) -> bool:
    return len(shape) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(shape, other, strict=True))


class _Trials:
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


def _rows_axes(trials: _Trials, inputs: Mapping[str, Shape], hints: Hints) -> Mapping[str, int | None] | None:
    """For each input the axis of the rows, None for one that all rows share; None if the file takes one row at a time."""
    choices = {
        name: [hints.rows.get(name)]
        if name in hints.rows or name in hints.values  # rows of one and the same value cannot be told apart
        else [*(axis for axis, size in enumerate(shape) if size == -1), None]
        for name, shape in inputs.items()
    }
    tried = 0
    for readings_of_one_kind in _readings(choices):
        proved = []
        for candidate in readings_of_one_kind:
            tried += 1
            if tried > MOST_READINGS:
                raise Unclear(
                    f"there are too many ways to read {len(inputs)} inputs, and none of the first {MOST_READINGS} keeps rows "
                    "apart; say where they are with --rows INPUT=AXIS, or INPUT=none, for some"
                )
            if _proved(trials, candidate):
                proved.append(candidate)
        if len(proved) > 1:
            readings = " or ".join(_told(candidate) for candidate in proved)
            raise Unclear(f"rows could lie along several axes: {readings}; say which with --rows INPUT=AXIS")
        if proved:
            return proved[0]
    if any(axis is not None for axis in hints.rows.values()):
        raise RepositoryError(f"rows do touch each other along {_told(hints.rows)}, or the file does not run so")
    try:
        trials.compute(trials.sent(dict.fromkeys(inputs), 1, SIZES[0]))
    except Unclear:
        raise
    except Exception as error:  # whatever a runtime raises
        raise Unclear(
            f"the file could not be run on anything that was tried, sizes of {SIZES[0]} along its free axes among them: "
            f"{first_line(error)}; state the sizes that it takes with --shape NAME:SIZES, -1 where free, and values with "
            "--value NAME=VALUE"
        ) from error
    return None


def _readings(choices: Mapping[str, Sequence[int | None]]) -> Iterator[Iterator[dict[str, int | None]]]:
    """Every way to say where the rows are, those first in which the fewest inputs have none."""
    must = {name for name, axes in choices.items() if None not in axes}
    may = [name for name, axes in choices.items() if None in axes and len(axes) > 1]
    never = {name for name, axes in choices.items() if list(axes) == [None]}

    def of_kind(count: int) -> Iterator[dict[str, int | None]]:
        for without in itertools.combinations(may, count):
            left_out = never | set(without)
            options = [
                (None,) if name in left_out else [axis for axis in axes if axis is not None]
                for name, axes in choices.items()
            ]
            for axes in itertools.product(*options):
                yield dict(zip(choices, axes, strict=True))

    for count in range(len(may) + (1 if must else 0)):
        yield of_kind(count)


def _proved(trials: _Trials, rows: Mapping[str, int | None]) -> bool:
    """Whether the file runs with rows there, gives every row an answer, and moves no other when one is changed."""
    count = ROWS[0]
    for size in SIZES[::-1]:
        sent = trials.sent(rows, count, size)
        try:
            base = trials.compute(sent)
            fewer = trials.compute(trials.sent(rows, count - 1, size))
        except Exception:  # noqa: BLE001, S112 - whatever a runtime raises: it does not run like this
            continue
        axes = _axes_of_rows(base, fewer, count)
        if axes is None:
            return False
        apart = all(_alone(trials, rows, axes, sent, base, row) for row in range(count))
        return apart and all(_in_company(trials, rows, axes, size, kind) for kind in KINDS)
    return False


def _axes_of_rows(base: Tensors, fewer: Tensors, count: int) -> Mapping[str, int] | None:
    """For each output the one axis that is as long as there are rows; None if one has none."""
    axes = {}
    for name, array in base.items():
        if array.ndim != fewer[name].ndim:
            return None
        found = [
            axis
            for axis, (more, less) in enumerate(zip(array.shape, fewer[name].shape, strict=True))
            if (more, less) == (count, count - 1)
        ]
        if len(found) != 1:
            return None
        axes[name] = found[0]
    return axes


def _alone(
    trials: _Trials,
    rows: Mapping[str, int | None],
    axes: Mapping[str, int],
    sent: Tensors,
    base: Tensors,
    row: int,
) -> bool:
    """Whether changing one row of all inputs changes that row of the answer and no other."""
    changed = {
        name: array if (axis := rows[name]) is None else trials.again(name, array, axis, row)
        for name, array in sent.items()
    }
    answer = trials.compute(changed)
    moved = False
    for name, array in answer.items():
        ours, theirs = np.moveaxis(array, axes[name], 0), np.moveaxis(base[name], axes[name], 0)
        others = [i for i in range(len(ours)) if i != row]
        if _differ(ours[others], theirs[others], _largest(theirs)):
            return False
        moved |= _differ(ours[row], theirs[row], 0)
    return moved


def _in_company(trials: _Trials, rows: Mapping[str, int | None], axes: Mapping[str, int], size: int, kind: str) -> bool:
    """Whether every row of a larger batch is answered as it is alone; also if the file takes no values of that kind."""
    sent = trials.sent(rows, COMPANY, size, kind)
    try:
        together = trials.compute(sent)
    except Exception:  # noqa: BLE001 - whatever a runtime raises; an id outside the vocabulary, say
        return kind != KINDS[0]
    for row in range(COMPANY):
        one = {
            name: array if (axis := rows[name]) is None else np.take(array, [row], axis) for name, array in sent.items()
        }
        for name, array in trials.compute(one).items():
            if _differ(np.take(together[name], [row], axes[name]), array, _largest(together[name])):
                return False
    return True


def _largest(array: npt.NDArray[Any]) -> float:
    """The largest finite absolute value, which differences are measured against: what is tiny beside it is rounding."""
    if array.dtype.kind not in "fiu" or not np.isfinite(array).any():
        return 0.0
    return float(np.abs(array[np.isfinite(array)].astype(np.float64)).max())


def _differ(got: npt.NDArray[Any], expected: npt.NDArray[Any], largest: float) -> bool:
    """Whether any element differs by more than rounding; what is no number in both is the same."""
    if got.dtype.kind not in "fiub":
        return not np.array_equal(got, expected)
    a, b = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= TOLERANCE * largest)
    return not bool(same.all())


@dataclasses.dataclass(frozen=True)
class _Specs:
    """The tensors of the specification, rows first, from what was stated and what was seen."""

    stated: ModelSpec
    shapes: Mapping[str, Shape]
    rows: Mapping[str, int | None] | None
    answers: Sequence[tuple[Tensors, Tensors]]

    def inputs(self) -> tuple[TensorSpec, ...]:
        made = []
        for tensor in self.stated.inputs:
            shape, axis = list(self.shapes[tensor.name]), self.rows[tensor.name] if self.rows else None
            if axis is not None:
                del shape[axis]
            rows = -1 if self.rows else 1
            made.append(TensorSpec(tensor.name, tensor.datatype, (rows, *shape), axis))
        return tuple(made)

    def outputs(self) -> tuple[TensorSpec, ...]:
        axes: Mapping[str, int] = {}
        if self.rows:
            by_rows: dict[int, Tensors] = {}
            for sent, answer in self.answers:
                by_rows.setdefault(_count(sent, self.rows), answer)
            axes = _axes_of_rows(by_rows[ROWS[0]], by_rows[ROWS[0] - 1], ROWS[0]) or {}
        made = []
        for tensor in self.stated.outputs:
            seen = [answer[tensor.name].shape for _, answer in self.answers]
            if len({len(shape) for shape in seen}) != 1:
                raise RepositoryError(f"the output {tensor.name} has another rank for other sizes: {sorted(set(seen))}")
            stated = tensor.file_shape if len(tensor.file_shape) == len(seen[0]) else (-1,) * len(seen[0])
            shape = [
                known if known > 0 else sizes[0] if len(set(sizes)) == 1 else -1
                for known, sizes in zip(stated, zip(*seen, strict=True), strict=True)
            ]
            axis = axes.get(tensor.name)
            if axis is not None:
                del shape[axis]
            made.append(TensorSpec(tensor.name, tensor.datatype, (-1 if self.rows else 1, *shape), axis))
        return tuple(made)


def _told(rows: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name}={'none' if axis is None else axis}" for name, axis in rows.items())
