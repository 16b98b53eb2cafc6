"""Whether rows are answered in company as they are alone: the proof that a batch changes no answer.

A pool of rows of every kind (`values.kinds`) is made, and each row is answered alone. Then the rows are dealt into random
companies, over and over, and in each company every row must get the answer that it got alone. What refuses a company of
rows that it takes one by one does not keep them apart either. What refuses a row alone proves nothing, and the row is left
out.

A file that mixes rows in a share p of the random companies is missed with a chance of (1 - p) ^ n, n being the number of
companies, which is more than 60 at each of two sizes: 5 % of the companies are missed once in 500 files. Random is not all:
rows of one kind also meet among themselves, every row meets itself, and one company is as large as a batch usually becomes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.signature.tensors import Tensors
from serving.verification import values
from serving.verification.golden import disagreement
from serving.verification.trials import Rows, Trials
from serving.verification.values import Kind

LEAST = 8  # rows that are answered alone, without which nothing is proved
ROUNDS = 6  # how often all rows are dealt into companies
SMALLEST, LARGEST = 2, 9
CROWD = 64  # rows of the largest company at every size
# At one size: what a batch is cut into, or from where it is another.
CROWDS = (12, 16, 20, 24, 32, 40, 48, 100, 128, 256)
COPIED = 5  # rows of a company of one and the same
GLANCES, SEVERAL = 8, 3  # rows, and their companies, at a size that is looked at for a moment
MOST_INPUTS = 6  # that are made special one at a time
OWN_KINDS = 8  # rows in which each input has a kind of its own
TOLERANCE = 1e-5
# A row's answer may move by so many times what it moves when its inputs are rounded otherwise.
ROUNDINGS, NUDGES, COPIES = 8, 3, (2, 3, 8)
USUAL_UP_TO = 50.0  # rows with larger values may be as sensitive as they like
MOST_ROUNDING = 1e-3  # that explains a difference while a model serves, or beside copies
NEGLIGIBLE = 1e-6  # of the largest answer: what is smaller is measured against that


Run = Callable[[Tensors], Tensors]


class Alone(NamedTuple):
    """A row, what kind it is, and what the file answers to it alone."""

    kind: Kind | None
    row: Tensors
    answer: Tensors


class Apart(NamedTuple):
    """What was seen: an empty `why` says that rows are apart, as far as `companies` of them can tell."""

    why: str
    companies: int = 0


def apart(trials: Trials, rows: Rows, axes: Mapping[str, int], size: int, crowds: Sequence[int] = CROWDS) -> Apart:
    """Whether every row is answered in company as it is alone; `axes` says where the rows of each output are.

    `crowds` are numbers of rows of further companies.
    """
    dealer = np.random.default_rng(size)
    shared = trials.shared(rows, size)
    pool = list(_answered_alone(trials, rows, shared, _pool(trials, rows, size)))
    if len(pool) < LEAST:
        return Apart(f"it takes only {len(pool)} rows of those that were tried, which proves nothing")
    return _compared(trials, rows, axes, shared, pool, _companies(dealer, pool, crowds))


def glance(trials: Trials, rows: Rows, axes: Mapping[str, int], size: int) -> Apart:
    """The same for a few rows, at a size at which a file may do something else; nothing is said where it takes no rows."""
    shared = trials.shared(rows, size)
    kinds = trials.kinds[:GLANCES]
    lengths = trials.lengths(len(kinds), rows, size)
    drawn = [(kind, trials.row(rows, size, kind, true)) for kind, true in zip(kinds, lengths, strict=True)]
    pool = list(_answered_alone(trials, rows, shared, drawn))
    if not pool and trials.takes(trials.together(rows, [row for _, row in drawn], shared)):
        return Apart(f"with free axes of {size} it refuses every row alone, and takes {len(drawn)} together")
    dealer = np.random.default_rng(size)
    dealt = [dealer.permutation(len(pool))[:many] for many in (SEVERAL, GLANCES, SMALLEST)]
    companies = [[pool[place] for place in places] for places in dealt if len(places) > 1]
    return _compared(trials, rows, axes, shared, pool, companies)


def _compared(
    trials: Trials,
    rows: Rows,
    axes: Mapping[str, int],
    shared: Tensors,
    pool: Sequence[Alone],
    companies: Iterable[Sequence[Alone]],
) -> Apart:
    measure = [one for one in pool if _usual(one.row)] or pool  # one answer to 1e9 would hide what moves all others
    floors = {name: NEGLIGIBLE * max((largest(one.answer[name]) for one in measure), default=0.0) for name in axes}
    count = 0
    for company in companies:
        if why := _touching(trials, rows, axes, shared, floors, company):
            return Apart(why, count)
        count += 1
    return Apart("", count)


def _answered_alone(
    trials: Trials, rows: Rows, shared: Tensors, drawn: Iterable[tuple[Kind | None, Tensors]]
) -> Iterator[Alone]:
    for kind, row in drawn:
        answer = trials.attempt(trials.together(rows, [row], shared))
        if answer is not None:  # else that row proves nothing
            yield Alone(kind, row, answer)


def _pool(trials: Trials, rows: Rows, size: int) -> Iterator[tuple[Kind | None, Tensors]]:
    kinds = trials.kinds
    lengths = trials.lengths(len(kinds), rows, size)
    for kind, true in zip(kinds, lengths, strict=True):
        yield kind, trials.row(rows, size, kind, true)
    dealer = np.random.default_rng(len(kinds))
    for true in trials.lengths(OWN_KINDS, rows, size):
        own = {name: kinds[dealer.integers(0, len(kinds))] for name in rows}
        yield None, trials.row(rows, size, own, true)
    with_rows = [name for name, axis in rows.items() if axis is not None]
    for name in with_rows[:MOST_INPUTS] if len(with_rows) > 1 else ():
        for special in (*values.ONE_AT_A_TIME, *(values.AS_A_MASK if trials.may_be_mask(name) else ())):
            (true,) = trials.lengths(1, rows, size)
            yield None, trials.row(rows, size, {**dict.fromkeys(rows, Kind()), name: special}, true)
    for row in itertools.islice(trials.rows_in_use(rows, size), LEAST):
        yield Kind(values.SAMPLED), row
        share = float(dealer.uniform(0.1, 0.9))
        cut = Kind(values.SAMPLED, values.TAIL)
        yield cut, {name: values.placed(dealer, array, cut, share) for name, array in row.items()}


def _companies(dealer: np.random.Generator, pool: Sequence[Alone], crowds: Sequence[int]) -> Iterator[list[Alone]]:
    """Rows that end alike among themselves, each row beside itself, all of them in random companies, and crowds."""
    finite = [one for one in pool if _finite(one.row)]
    alike = [one for one in finite if one.kind and one.kind.place == values.TAIL and one.kind.marker == 0]
    whole = [one for one in finite if one.kind and one.kind.place == values.NOWHERE]
    yield from (family for family in (alike, alike[::-1], whole, finite) if len(family) > 1)
    for _ in range(ROUNDS):
        order = dealer.permutation(len(pool))
        at = 0
        while at < len(order):
            many = int(dealer.integers(SMALLEST, LARGEST + 1))
            chosen = [pool[place] for place in order[at : at + many]]
            at += many
            if len(chosen) == 1:
                chosen *= 2  # beside itself
            yield chosen
    if finite:
        yield [finite[0]] * COPIED
        for many in (CROWD, *crowds):
            yield [finite[place % len(finite)] for place in dealer.permutation(max(many, len(finite)))[:many]]


def _touching(
    trials: Trials,
    rows: Rows,
    axes: Mapping[str, int],
    shared: Tensors,
    floors: Mapping[str, float],
    company: Sequence[Alone],
) -> str:
    """What happened to a row in this company, as part of a sentence; "" if nothing."""
    try:
        together = trials.compute(trials.together(rows, [one.row for one in company], shared))
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises
        return f"{len(company)} rows that it takes one by one it refuses together: {_all_told(company)} ({error})"
    for name, axis in axes.items():
        answered = np.moveaxis(together[name], axis, 0) if together[name].ndim > axis else together[name][:0]
        if len(answered) != len(company):
            return f"{len(company)} rows get {len(answered)} answers in {name}"
        for place, one in enumerate(company):
            if one.answer[name].ndim <= axis or one.answer[name].shape[axis] != 1:
                return f"one row gets an answer {name} of shape {list(one.answer[name].shape)}, which is not that of one row"
            expected = np.moveaxis(one.answer[name], axis, 0)[0]
            beside = max(largest(expected), floors[name])
            gap = disagreement(answered[place], expected, beside)
            if gap <= TOLERANCE:
                continue
            if gap > ROUNDINGS * _rounding(trials, rows, shared, one, name, axis, beside):
                return (
                    f"a row ({told(one.kind)}) gets another answer in {name} among {len(company)} rows than alone, "
                    f"{gap:.2g} of it apart"
                )
            served = disagreement(answered[place], expected, max(1.0, largest(expected)))
            if served > trials.tolerance and _usual(one.row):
                return (
                    f"several rows are rounded otherwise than one, which moves the answer {name} to a row ({told(one.kind)}) by "
                    f"{served:.2g}, and {trials.tolerance:.2g} is allowed (--tolerance)"
                )
    return ""


def _rounding(trials: Trials, rows: Rows, shared: Tensors, one: Alone, name: str, axis: int, beside: float) -> float:
    """How far the answer to a row moves when it is rounded otherwise: its inputs to the last bit, or its sums.

    A runtime sums in another order for several rows than for one. A network that is sensitive to that is so to the last
    bit of its inputs too. Where these are whole numbers, the row is put beside copies of itself: what moves it then, and
    equally for any number of them and by little, is neither another row nor how many there are.
    """
    # Sums of large numbers are rounded to the last bit of these, markers among them, which cannot be moved.
    moved = min(_last_bit(one.row), MOST_ROUNDING / ROUNDINGS)
    for other in _nudges(one.row):
        answer = trials.attempt(trials.together(rows, [other], shared))
        if answer is None:  # that explains nothing
            return 0.0
        moved = max(moved, disagreement(answer[name], one.answer[name], beside))
    copied: list[float] = []
    for many in COPIES:
        answer = trials.attempt(trials.together(rows, [one.row] * many, shared))
        if answer is None:
            return 0.0
        beside_copies = np.take(answer[name], [0], axis)
        if disagreement(beside_copies, one.answer[name], max(1.0, beside)) > max(MOST_ROUNDING, trials.tolerance):
            copied = []
            break  # no rounding: it does something else with several rows than with one
        copied.append(disagreement(beside_copies, one.answer[name], beside))
    if copied and max(copied) <= 2 * min(copied):
        moved = max(moved, *copied)
    return moved if np.isfinite(moved) else 0.0


def _last_bit(row: Tensors) -> float:
    """How much the last bit of its largest value is."""
    floats = [array for array in row.values() if array.dtype.kind == "f"]
    return max((largest(array) * float(np.finfo(array.dtype).eps) for array in floats), default=0.0)


def _usual(row: Tensors) -> bool:
    """Whether it holds nothing that is out of the usual."""
    return all(
        array.dtype.kind != "f"
        or not array.size
        or float(np.abs(np.nan_to_num(array, nan=np.inf)).max()) <= USUAL_UP_TO
        for array in row.values()
    )


def answered_otherwise(run: Run, row: Tensors, answered: Tensors, *, tolerance: float) -> str:
    """How far the answer to a row in company is from what `run` answers to it alone, as the end of a sentence; "" if it is not.

    A difference is measured against the largest value of the answer, or against 1 if that is less, and is allowed to be
    `tolerance`, or what rounding explains. Raises what `run` raises.
    """
    alone = run(row)
    for name, got in answered.items():
        expected = alone[name]
        beside = max(1.0, largest(expected))
        gap = disagreement(got, expected, beside)
        if gap <= tolerance:
            continue
        rounding = ROUNDINGS * max(disagreement(run(other)[name], expected, beside) for other in _nudges(row))
        if gap > min(rounding, MOST_ROUNDING):
            return (
                f"an answer {name} was {gap:.2g} away from that to the same row alone, and {tolerance:.2g} is allowed"
            )
    return ""


def _nudges(row: Tensors) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """The row rounded otherwise, in several ways."""
    dealer = np.random.default_rng(0)
    for _ in range(NUDGES):
        yield {name: _nudged(dealer, array) for name, array in row.items()}


def _nudged(dealer: np.random.Generator, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every float moved to one of its neighbours, but for what may be a marker: whole numbers, and what is there twice."""
    if array.dtype.kind != "f":
        return array
    _, places, counts = np.unique(array, return_inverse=True, return_counts=True)
    by_chance = (counts[places].reshape(array.shape) == 1) & (array != np.round(array))
    towards = np.where(dealer.integers(0, 2, array.shape), np.inf, -np.inf).astype(array.dtype)
    nudged: npt.NDArray[Any] = np.where(by_chance, np.nextafter(array, towards), array)
    return nudged


def _finite(row: Tensors) -> bool:
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in row.values())


def largest(array: npt.NDArray[Any]) -> float:
    """The largest finite absolute value, which differences are measured against: what is tiny beside it is rounding."""
    if array.dtype.kind not in "fiu" or not np.isfinite(array).any():
        return 0.0
    return float(np.abs(array[np.isfinite(array)].astype(np.float64)).max())


def _all_told(company: Sequence[Alone]) -> str:
    """The kinds of a company, each once."""
    return ", ".join(dict.fromkeys(told(one.kind) for one in company))


def told(kind: Kind | None) -> str:
    """A kind, for people."""
    if kind is None:
        return "each input of another kind"
    body = {values.SAMPLED: "of the samples"}.get(kind.body, f"{kind.body} values")
    where = {
        values.TAIL: f"ending in {kind.marker:g}",
        values.HEAD: f"beginning with {kind.marker:g}",
        values.HOLE: f"{kind.marker:g} within",
        values.EVERYWHERE: f"{kind.marker:g} everywhere",
        values.HOLES: f"{', '.join(f'{marker:g}' for marker in kind.others)} within",
    }
    return f"{body}, {where[kind.place]}" if kind.place in where else body
