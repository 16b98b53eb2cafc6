"""What the inputs of a row hold in a trial: bodies and endings, each of them a way in which rows have been seen to touch.

A batch may be fine for numbers about 0 and wrong for rows that end in zeros, because the file takes those for padding and
cuts the batch to its longest row. So a row is drawn as a `Kind`: how its values are made, and what stands at its beginning,
in its middle or at its end. Markers are what files take for padding: the usual ones here, and every constant that the
file itself holds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# How the true values are made.
USUAL, POSITIVE, NEGATIVE, LARGE, SMALL = "usual", "positive", "negative", "large", "small"
SPIKE, CONSTANT, REPEATED, RAMP, SAMPLED = "spike", "constant", "repeated", "ramp", "sampled"
FLAGS = "flags"  # ones, as a mask has them where its row is true
BODIES = (USUAL, POSITIVE, NEGATIVE, LARGE, SMALL, SPIKE, CONSTANT, REPEATED, RAMP)
# Where a marker stands in their place.
NOWHERE, TAIL, HEAD, HOLE, EVERYWHERE = "nowhere", "tail", "head", "hole", "everywhere"
HOLES = "holes"  # several markers, each at a step of its own
AT_STEPS = (TAIL, HEAD, HOLE, HOLES)

# What is taken for padding or for a missing value, by those who write networks; 0 and NaN stand at every place.
USUAL_MARKERS = (
    *(0.0, float("nan"), -1.0, 1.0, -10.0, -99.0, -100.0, -999.0, -9999.0, 999.0, -1e9, float("inf"), -2.0, -5.0),
    -float("inf"),
)
# What some take; each of these stands within a row, several of them in one row.
RARE_MARKERS = (
    *(-3.0, -4.0, -6.0, -8.0, 2.0, -20.0, 10.0, 99.0, 100.0, 255.0, 9999.0, -128.0, -1e4, -32768.0, -1e5, 1e9, 1e20),
)
MOST_CONSTANTS = 4  # of the file's own that have rows of their own; more stand within rows
MOST_WITHIN, MOST_THRESHOLDS = 40, 8
IN_ONE_ROW = 8  # markers within
NUMBERS = ("0", "1", "2.5", "-3", "40", "1e3", "-0.25")
WORDS = ("", "0", "1", "2.5", "a", "b", "yes", "no", "word", "Word")
WHOLE_BELOW, LARGE_BELOW = 10, 100_000  # whole numbers that lead to no table


@dataclasses.dataclass(frozen=True)
class Kind:
    """A body, and a marker at a place: `Kind()` is numbers about 0 and nothing else. `others` are further markers within."""

    body: str = USUAL
    place: str = NOWHERE
    marker: float = 0.0
    others: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holding:
    """What is known of an input: `ids` is from which whole number on the file fails, 0 if from none.

    With `whole` only whole numbers are sent, whatever the datatype: the file drops what is behind the point. With
    `counts` there is one number a row, as lengths have it, and it is drawn from 1 to the number of steps. With `shares` these
    are shares of the steps, from 0 to 1. With `flags` the file takes 0 and 1 alone, as a mask has them. `texts` are
    strings that the file knows; with `numbers` it takes such strings alone as are numbers.
    """

    dtype: np.dtype[Any]
    ids: int = 0
    whole: bool = False
    counts: bool = False
    shares: bool = False
    flags: bool = False
    texts: Sequence[str] = ()
    numbers: bool = False


def kinds(constants: Sequence[float] = ()) -> list[Kind]:
    """Every kind that a file with these constants is tried with; the first one is the usual one."""
    own = [
        value for value in dict.fromkeys(map(float, constants)) if value not in USUAL_MARKERS and math.isfinite(value)
    ]
    markers = (*USUAL_MARKERS, *own[:MOST_CONSTANTS])
    made = [Kind(body) for body in BODIES]
    made += [Kind(USUAL, TAIL, marker) for marker in markers]
    made += [Kind(place=place, marker=marker) for place in (HEAD, HOLE, EVERYWHERE) for marker in markers[:2]]
    made += [Kind(POSITIVE, TAIL), Kind(LARGE, TAIL), Kind(USUAL, TAIL), Kind(USUAL, TAIL)]
    made += [Kind(POSITIVE, HOLE, float("inf")), Kind(SPIKE, HOLE)]
    within = [*RARE_MARKERS, *(value for value in own[MOST_CONSTANTS:][:MOST_WITHIN] if value not in RARE_MARKERS)]
    # Thresholds: values about each constant of the file's own.
    within += [value * 1.01 for value in own[MOST_CONSTANTS:][:MOST_THRESHOLDS]]
    made += [Kind(place=HOLES, others=tuple(within[at : at + IN_ONE_ROW])) for at in range(0, len(within), IN_ONE_ROW)]
    return made + [Kind(CONSTANT, EVERYWHERE, value * 1.01) for value in own[:MOST_CONSTANTS]]


# What one input of several holds while the others are usual: a fresh state, lengths out of bounds, a mask of any datatype.
ONE_AT_A_TIME = (Kind(place=EVERYWHERE), Kind(LARGE))
AS_A_MASK = (Kind(FLAGS, TAIL), Kind(FLAGS, HEAD))


def draw(
    generator: np.random.Generator, holding: Holding, sizes: Sequence[int], kind: Kind, true: int | None, steps: int
) -> Array:
    """Values `sizes` of one row; `true` of `steps` stand before a tail or after a head, and where they are counted.

    Without `true` these are the values of nobody knows how many rows, and as many lengths are drawn as there are places.
    """
    share = (true or steps) / steps
    if holding.dtype.kind == "O":
        return _texts(generator, holding, sizes)
    if holding.dtype.kind == "b":
        return _flags(generator, sizes, kind, share)
    whole = holding.whole or holding.dtype.kind in "iu"
    if holding.flags and (whole or kind.body != POSITIVE):
        flags = _flags(generator, sizes, kind, share)
        flags[..., :1] = True  # what sums a mask up for lengths takes no row of nothing
        return flags.astype(holding.dtype)
    if holding.counts and not holding.ids and (whole or holding.shares or kind.place in (TAIL, HEAD)):
        return _counted(generator, holding, sizes, kind, true, steps, whole=whole)
    if whole:
        top = holding.ids or (WHOLE_BELOW if kind.body != LARGE else LARGE_BELOW)
        made = _WHOLE.get(kind.body, _WHOLE[USUAL])(generator, tuple(sizes), top)
        marked = _marked(made.astype(np.float64), kind, share, generator)
        if holding.ids:  # an id outside the table is a refusal, which proves nothing; what is meant is a special one
            marked = np.where(marked < 0, top - 1, np.nan_to_num(marked, nan=0, posinf=top - 1)) % top
        else:
            marked = np.nan_to_num(marked, nan=0, posinf=top)
        return _cast(np.round(marked), holding.dtype)
    return _cast(_marked(_REAL[kind.body](generator, tuple(sizes)), kind, share, generator), holding.dtype)


def _counted(
    generator: np.random.Generator,
    holding: Holding,
    sizes: Sequence[int],
    kind: Kind,
    true: int | None,
    steps: int,
    *,
    whole: bool,
) -> Array:
    """Lengths; some are 0 and some more than there are steps, which a file may refuse. Floats may be shares of the steps."""
    if whole and true is None:
        return generator.integers(1, steps + 1, sizes).astype(holding.dtype)
    counted = float(true or steps)
    if holding.shares or (kind.place == HEAD and not whole):
        counted /= steps
    elif kind.place == EVERYWHERE and kind.marker == 0:
        counted = 0
    elif kind == Kind(LARGE):
        counted = steps + 3
    return np.full(sizes, counted, holding.dtype)


def placed(generator: np.random.Generator, values: Array, kind: Kind, share: float) -> Array:
    """Somebody's own values with the marker of a kind in its place, behind or before that share of the steps."""
    if values.dtype.kind not in "fiu":
        return values
    return _cast(_marked(values.astype(np.float64), kind, share, generator), values.dtype)


def _marked(made: Array, kind: Kind, share: float, generator: np.random.Generator) -> Array:
    if kind.place == NOWHERE or not made.ndim:
        return made
    if kind.place == EVERYWHERE:
        return np.full_like(made, kind.marker)
    axis = next((axis for axis, size in enumerate(made.shape) if size > 1), 0)
    steps = np.moveaxis(made, axis, 0)  # a view: what is written there is written to `made`
    true = max(
        1, min(round(share * len(steps)), len(steps) - 1)
    )  # the marker is there, wherever there is a place for it
    if kind.place == TAIL:
        steps[true:] = kind.marker
    elif kind.place == HEAD:
        steps[: len(steps) - true] = kind.marker
    elif kind.place == HOLES:
        for place, marker in zip(generator.permutation(len(steps)), kind.others, strict=False):
            steps[place] = marker
    else:
        steps[generator.integers(0, len(steps))] = kind.marker
    return made


def _flags(generator: np.random.Generator, sizes: Sequence[int], kind: Kind, share: float) -> Array:
    if kind.place in (TAIL, HEAD):
        marked = _marked(np.ones(tuple(sizes)), Kind(place=kind.place), share, generator)
        return marked.astype(np.bool_)
    if kind.body in (POSITIVE, NEGATIVE):
        return np.full(sizes, kind.body == POSITIVE)
    return generator.integers(0, 2, sizes).astype(np.bool_)


def _texts(generator: np.random.Generator, holding: Holding, sizes: Sequence[int]) -> Array:
    known = NUMBERS if holding.numbers else (*WORDS, *holding.texts)
    words = np.array([word.encode() for word in known], object)
    chosen = words[generator.integers(0, len(words), tuple(sizes))]
    return np.array(chosen, object).reshape(tuple(sizes))


def _cast(made: Array, dtype: np.dtype[Any]) -> Array:
    """As the input has it; what is beyond its range is the largest that it holds."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(made, max(limits.min, -(2.0**53)), min(limits.max, 2.0**53)).astype(dtype)
    with np.errstate(over="ignore"):
        return made.astype(dtype)


def _spike(generator: np.random.Generator, sizes: tuple[int, ...]) -> Array:
    made = np.zeros(sizes)
    made.flat[generator.integers(0, max(made.size, 1))] = 3.0
    return made


def _repeated(generator: np.random.Generator, sizes: tuple[int, ...]) -> Array:
    one = generator.normal(0, 0.5, sizes[1:])
    return np.broadcast_to(one, sizes).copy()


def _ramp(generator: np.random.Generator, sizes: tuple[int, ...]) -> Array:
    return np.linspace(0, 1, max(int(np.prod(sizes)), 1)).reshape(sizes) + generator.normal(0, 0.01)


_REAL: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    USUAL: lambda generator, sizes: generator.normal(0, 0.5, sizes),
    POSITIVE: lambda generator, sizes: generator.uniform(0.1, 1, sizes),
    NEGATIVE: lambda generator, sizes: -generator.uniform(0.1, 1, sizes),
    LARGE: lambda generator, sizes: generator.normal(0, 1, sizes) * 10.0 ** generator.uniform(1, 4),
    SMALL: lambda generator, sizes: generator.normal(0, 1, sizes) * 10.0 ** generator.uniform(-5, -2),
    SPIKE: _spike,
    CONSTANT: lambda generator, sizes: np.full(sizes, generator.normal(0, 0.5)),
    REPEATED: _repeated,
    RAMP: _ramp,
    FLAGS: lambda generator, sizes: np.ones(sizes),
}
_WHOLE: dict[str, Callable[[np.random.Generator, tuple[int, ...], int], Array]] = {
    USUAL: lambda generator, sizes, top: generator.integers(0, top, sizes),
    POSITIVE: lambda generator, sizes, top: generator.integers(min(1, top - 1), top, sizes),
    SMALL: lambda generator, sizes, top: generator.integers(0, min(2, top), sizes),
    LARGE: lambda generator, sizes, top: generator.integers(top - max(top // 4, 1), top, sizes),
    FLAGS: lambda generator, sizes, top: np.full(sizes, min(1, top - 1)),
    SPIKE: lambda generator, sizes, top: (_spike(generator, sizes) > 0) * (top - 1),
    CONSTANT: lambda generator, sizes, top: np.full(sizes, generator.integers(0, top)),
    REPEATED: lambda generator, sizes, top: np.full(sizes, generator.integers(0, top)),
    RAMP: lambda generator, sizes, top: np.arange(max(int(np.prod(sizes)), 1)).reshape(sizes) % top,
}
