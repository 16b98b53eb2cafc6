"""Recurrent functions that stand for files of others: such as mix rows, each in its own way, and such as keep them apart.

Each takes `x` `[rows, steps, 4]` float32 (`ids` and `mask` are made of it, see `Network.inputs`) and answers for each row.
What they have in common is `recurrent`; what mixes is in the function alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Inputs = dict[str, Array]

X = {"x": ("FP32", (-1, -1, 4))}
IDS = {"ids": ("INT64", (-1, -1))}
LENGTHS = {**X, "lengths": ("INT64", (-1,))}
SPEAKER = {**X, "speaker": ("INT64", (-1,))}
MASK = {**X, "mask": ("BOOL", (-1, -1))}
STATE = {**X, "h": ("FP32", (-1, 3))}
FLOAT_MASK = {**X, "mask": ("FP32", (-1, -1))}
WHOLE_MASK = {**X, "mask": ("INT64", (-1, -1))}
FLOAT_LENGTHS = {**X, "lengths": ("FP32", (-1,))}
TABLE = 20  # lines of the table that ids lead to

_generator = np.random.default_rng(5)
_INTO, _ROUND = _generator.normal(0, 0.7, (4, 3)), _generator.normal(0, 0.5, (3, 3))
_TABLE = _generator.normal(0, 0.7, (TABLE, 4))


def recurrent(x: Array, h: Array | None = None) -> Array:
    """h_t = tanh(x_t A + h_(t-1) B) for `[rows, steps, 4]`, as `[rows, steps, 3]`; in double precision."""
    h = np.zeros((len(x), 3)) if h is None else h
    made = np.zeros((*x.shape[:2], 3))
    with np.errstate(all="ignore"):
        for step in range(x.shape[1]):
            h = np.tanh(x[:, step].astype(np.float64) @ _INTO + h @ _ROUND)
            made[:, step] = h
    return made


def embedded(ids: Array) -> Array:
    """`[rows, steps, 4]`. Raises `ValueError` for an id outside the table."""
    if ids.min() < 0 or ids.max() >= TABLE:
        raise ValueError("an id is outside the table")
    return _TABLE[ids]


def checked(lengths: Array, steps: int) -> Array:
    """Raises `ValueError` for lengths that are not within 1 and the number of steps, as torch's packing does."""
    if lengths.min() < 1 or lengths.max() > steps:
        raise ValueError("a length is not within 1 and the number of steps")
    return lengths


def last(y: Array, lengths: Array) -> Array:
    """The step before the end of each row."""
    return y[np.arange(len(y)), lengths - 1]


def masked_mean(y: Array, lengths: Array) -> Array:
    """The mean over the true steps of each row."""
    true = np.arange(y.shape[1]) < lengths[:, None]
    return (y * true[:, :, None]).sum(axis=1) / lengths[:, None]


@dataclasses.dataclass(frozen=True)
class Network:
    """A function of the inputs by name, what it declares, and constants that its file would hold."""

    name: str
    answer: Callable[..., Array]
    inputs: Mapping[str, tuple[str, tuple[int, ...]]] = dataclasses.field(default_factory=lambda: X)
    constants: tuple[float, ...] = ()

    def run(self, sent: Any, wanted: Any) -> dict[str, Array]:
        with np.errstate(all="ignore"):
            return {"y": np.asarray(self.answer(**sent), np.float32)}


def _longest_without(x: Array, padding: Callable[[Array], Array]) -> Array:
    """The batch cut to the longest row that is left when frames of padding are counted out, and the mean over that."""
    count = (~padding(x).all(axis=2)).sum(axis=1).max()
    return recurrent(x[:, : max(int(count), 1)]).mean(axis=1)


def _normalised(y: Array, axes: tuple[int, ...]) -> Array:
    return (y - y.mean(axis=axes, keepdims=True)) / np.sqrt(y.var(axis=axes, keepdims=True) + 1e-5)


def _quantised(x: Array, scale: Array) -> Array:
    scale = np.where(scale > 0, scale, 1) / 127
    return np.round(x / scale) * scale


def _trimmed_at_the_start(x: Array) -> Array:
    true = np.abs(x).sum(axis=2) > 0
    first = min((int(row.argmax()) if row.any() else x.shape[1] - 1) for row in true)
    return recurrent(x[:, first:]).mean(axis=1)


def _each_goes_on(x: Array) -> Array:
    h, made = np.zeros((1, 3)), []
    for row in x:
        made.append(recurrent(row[None], h)[0])
        h = made[-1][-1:]
    return np.stack(made)


def _neighbours(x: Array) -> Array:
    y = recurrent(x)
    y[1::2] = (y[1::2] + y[: len(y) - 1 : 2]) / 2
    return y


def _only_once(x: Array) -> Array:
    y = recurrent(x)
    for place in range(1, len(x)):
        if any(np.array_equal(x[place], other, equal_nan=True) for other in x[:place]):
            y[place] = 0
    return y


def _sorted_by_length(x: Array, lengths: Array) -> Array:
    order = np.argsort(-checked(lengths, x.shape[1]), kind="stable")
    return last(recurrent(x[order]), lengths[order])


def _refused_unless_sorted(x: Array, lengths: Array) -> Array:
    if (np.diff(checked(lengths, x.shape[1])) > 0).any():
        raise ValueError("lengths must be in descending order")
    return last(recurrent(x), lengths)


def _until_all_are_done(x: Array) -> Array:
    y = recurrent(x)
    done = np.maximum.accumulate(y[:, :, 0] > 0.3, axis=1).all(axis=0)
    return y[:, : int(done.argmax()) + 1 if done.any() else y.shape[1]]


def _by_speaker(x: Array, speaker: Array) -> Array:
    y = recurrent(x).mean(axis=1)
    return np.stack([y[row] - y[speaker == speaker[row]].mean(axis=0) / 2 for row in range(len(y))])


def _filled_with_the_mean(x: Array) -> Array:
    return recurrent(np.where(np.isnan(x), np.nan_to_num(np.nanmean(x)), x))


def _attention(x: Array) -> Array:
    y = recurrent(x)
    others = np.einsum("rsf,tsf->rt", y, y)
    weights = np.exp(np.minimum(others - others.max(axis=1, keepdims=True), 0))
    return y + 1e-3 * np.einsum("rt,tsf->rsf", weights / weights.sum(axis=1, keepdims=True), y)


def _if_one(x: Array, condition: Callable[[Array], Any]) -> Array:
    y = recurrent(x)
    return y * 0.5 if condition(x) else y


def _less_the_mean(x: Array, *, where: bool) -> Array:
    y = recurrent(x)
    return y - y.mean(axis=0) if where else y


def _softmax_of_what_is_left(x: Array) -> Array:
    """Attention whose author has squeezed the scores: of a single step the rows are left, and compete."""
    y = recurrent(x)
    scores = np.exp(3 * np.squeeze(y[:, :, :1]))
    weights = scores / scores.sum(axis=-1, keepdims=True)
    return (y * weights.reshape(len(x), x.shape[1], 1)).sum(axis=1)


def _in_groups_of_100(x: Array) -> Array:
    y = recurrent(x)
    whole = len(y) // 100 * 100
    groups = y[:whole].reshape(-1, 100, *y.shape[1:])
    y[:whole] = (groups - 0.1 * groups.mean(axis=1, keepdims=True)).reshape(whole, *y.shape[1:])
    return y


def _true_rows_in_front(x: Array) -> Array:
    y, true = recurrent(x)[:, -1], np.abs(x).sum(axis=(1, 2)) > 0
    made = np.zeros_like(y)
    made[: true.sum()] = y[true]
    return made


def _padding_counts_alone(x: Array) -> Array:
    """A single row takes a way of its own, as in networks that pack several rows and feed one as it is."""
    true = np.ones(x.shape[:2], bool) if len(x) == 1 else (x != -999).any(axis=2)
    return (recurrent(x) * true[:, :, None]).sum(axis=1)


def flags(mask: Array) -> Array:
    """How many of each row are true. Raises `ValueError` unless that is within 1 and the number of steps."""
    return checked(mask.sum(axis=1).astype(int), mask.shape[1])


def counts(lengths: Array, steps: int) -> Array:
    """Lengths that come as floats."""
    return checked(lengths.astype(int), steps)


def shares(lengths: Array, steps: int) -> Array:
    """Lengths that come as shares of the steps. Raises `ValueError` for what is no share."""
    if (lengths <= 0).any() or (lengths > 1).any():
        raise ValueError("a share is not within 0 and 1")
    return np.ceil(lengths * steps).astype(int)


MIXING = [
    # over values
    Network("mean", lambda x: (y := recurrent(x)) - y.mean(axis=0)),
    Network("mean, a thousandth of it", lambda x: (y := recurrent(x)) - 1e-3 * y.mean(axis=0)),
    Network("median", lambda x: (y := recurrent(x)) - np.median(y, axis=0)),
    Network("largest", lambda x: (y := recurrent(x)) / np.abs(y).max()),
    Network("norm", lambda x: (y := recurrent(x)) / (1 + np.sqrt((y**2).sum()))),
    Network("softmax", lambda x: np.exp(y := recurrent(x)[:, -1]) / np.exp(y).sum(axis=0)),
    Network("log softmax over everything", lambda x: (y := recurrent(x)) - np.log(np.exp(y).sum())),
    Network("batch norm in training mode", lambda x: _normalised(recurrent(x), (0, 1))),
    Network("batch norm at each step", lambda x: _normalised(recurrent(x), (0,))),
    Network("sorted", lambda x: np.sort(recurrent(x)[:, -1], axis=0)),
    Network("rank", lambda x: np.argsort(np.argsort(recurrent(x)[:, -1, 0])).astype(float)[:, None]),
    Network("cumulative sum", lambda x: np.cumsum(recurrent(x), axis=0)),
    Network("cumulative largest", lambda x: np.maximum.accumulate(recurrent(x), axis=0)),
    Network("attention", _attention),
    Network("by the number of rows", lambda x: recurrent(x) / len(x)),
    Network("number of the row", lambda x: recurrent(x) + 0.01 * np.arange(len(x))[:, None, None]),
    Network("from the first row", lambda x: (y := recurrent(x)) - y[:1]),
    Network("from the last row", lambda x: (y := recurrent(x)) - 0.1 * y[-1:]),
    Network("each goes on from the one before", _each_goes_on),
    Network("neighbours", _neighbours),
    Network("turned round", lambda x: recurrent(x)[::-1]),
    Network("moved on by one from six rows", lambda x: np.roll(y := recurrent(x), int(len(y) > 5), axis=0)),
    Network("from forty rows", lambda x: (y := recurrent(x)) - (y.mean(axis=0) if len(y) > 40 else 0)),
    Network("rows that are there already", _only_once),
    Network("quantised by the largest", lambda x: recurrent(_quantised(x, np.abs(x).max()))),
    Network("quantised at each step", lambda x: recurrent(_quantised(x, np.abs(x).max(axis=(0, 2), keepdims=True)))),
    Network("state of the first row", lambda x, h: recurrent(x, np.broadcast_to(h[:1], h.shape)), STATE),
    Network("mean state", lambda x, h: recurrent(x, 0.9 * h + 0.1 * h.mean(axis=0)), STATE),
    # over values that are special
    Network("large values", lambda x: recurrent(x) + np.maximum(np.abs(x) - 100, 0).mean()),
    Network("if one is large", lambda x: _if_one(x, lambda v: v.max() > 50)),
    Network("if one is NaN", lambda x: _if_one(x, lambda v: np.isnan(v).any())),
    Network("if one is infinite", lambda x: _if_one(x, lambda v: np.isinf(v).any())),
    Network("if one row is all zeros", lambda x: _if_one(x, lambda v: (v == 0).all(axis=(1, 2)).any())),
    Network("if one does not change", lambda x: _if_one(x, lambda v: (np.ptp(v, axis=1) == 0).all(axis=1).any())),
    Network("NaN filled with the mean", _filled_with_the_mean),
    Network("constant of the file's own", lambda x: _if_one(x, lambda v: (v == 7.25).any()), constants=(7.25,)),
    Network("threshold of the file's own", lambda x: _if_one(x, lambda v: v.max() > 6e5), constants=(0.5, 6e5)),
    # padding that is found by value
    Network("frames of zeros", lambda x: _longest_without(x, lambda v: v == 0)),
    Network("frames of zeros at the start", _trimmed_at_the_start),
    Network("frames of -1", lambda x: _longest_without(x, lambda v: v == -1)),
    Network("frames of -999", lambda x: _longest_without(x, lambda v: v == -999)),
    Network("frames of NaN", lambda x: _longest_without(x, np.isnan)),
    Network("frames of -7.5", lambda x: _longest_without(x, lambda v: v == -7.5), constants=(-7.5,)),
    Network("id 0", lambda ids: recurrent(embedded(ids)[:, : max((ids > 0).sum(axis=1).max(), 1)]).mean(axis=1), IDS),
    Network("the last id", lambda ids: recurrent(embedded(ids)) * (1 - 0.1 * (ids == TABLE - 1).any()), IDS),
    Network("ids counted", lambda ids: recurrent(embedded(ids)) + 1e-3 * (ids == 3).sum(), IDS),
    # over lengths
    Network("mean over the longest", lambda x, lengths: (
        recurrent(x)[:, : checked(lengths, x.shape[1]).max()].mean(axis=1)), LENGTHS),
    Network("cut to the longest", lambda x, lengths: (
        recurrent(x)[:, : checked(lengths, x.shape[1]).max()]), LENGTHS),
    Network("last step of the longest", lambda x, lengths: (
        recurrent(x)[:, checked(lengths, x.shape[1]).max() - 1]), LENGTHS),
    Network("from the shortest", lambda x, lengths: (
        recurrent(x)[:, checked(lengths, x.shape[1]).min() - 1 :].mean(axis=1)), LENGTHS),
    Network("sorted by length", _sorted_by_length, LENGTHS),
    Network("refused unless sorted by length", _refused_unless_sorted, LENGTHS),
    Network("length of the first row", lambda x, lengths: (
        recurrent(x)[:, checked(lengths, x.shape[1])[0] - 1]), LENGTHS),
    Network("share of all true steps", lambda x, lengths: (
        masked_mean(recurrent(x), checked(lengths, x.shape[1])) * (lengths / lengths.sum())[:, None]), LENGTHS),
    Network("mask of any row", lambda x, mask: recurrent(x * mask.any(axis=0)[None, :, None]), MASK),
    Network("rows of the same speaker", _by_speaker, SPEAKER),
    Network("mask of ones that counts", lambda x, mask: recurrent(x)[:, : flags(mask).max()].mean(axis=1), FLOAT_MASK),
    Network("mask of whole numbers that counts", lambda x, mask: recurrent(x) / flags(mask).max(), WHOLE_MASK),
    Network("float lengths", lambda x, lengths: recurrent(x) / counts(lengths, x.shape[1]).max(), FLOAT_LENGTHS),
    Network("shares", lambda x, lengths: recurrent(x) / shares(lengths, x.shape[1]).max(), FLOAT_LENGTHS),
    Network("a length of 0", lambda x, lengths: recurrent(x) * (1 - 0.5 * (lengths == 0).any()), LENGTHS),
    Network("a length beyond the steps", lambda x, lengths: (
        recurrent(x) * (1 - 0.5 * (lengths > x.shape[1]).any())), LENGTHS),
    Network("frames of NaN before a state", lambda x, h: recurrent(
        x[:, : max(int((~np.isnan(x).all(axis=2)).sum(axis=1).max()), 1)], h).mean(axis=1), STATE),
    Network("if all states are fresh", lambda x, h: recurrent(x, h) * (1 - 0.1 * (h == 0).all()), STATE),
    # at sizes of their own
    Network("of a single step", lambda x: _less_the_mean(x, where=x.shape[1] == 1)),
    Network("squeezed scores", _softmax_of_what_is_left),
    Network("of many steps", lambda x: _less_the_mean(x, where=x.shape[1] > 100)),
    Network("of a batch of 16", lambda x: _less_the_mean(x, where=len(x) == 16)),
    Network("of a batch of 32", lambda x: _less_the_mean(x, where=len(x) == 32)),
    Network("of more than 64 rows", lambda x: _less_the_mean(x, where=len(x) > 64)),
    Network("in groups of 100", _in_groups_of_100),
    # by rarer values
    Network("frames of -infinity", lambda x: _longest_without(x, np.isneginf)),
    Network("frames of -2", lambda x: _longest_without(x, lambda v: v == -2)),
    Network("frames of -10000", lambda x: _longest_without(x, lambda v: v == -1e4)),
    Network("frames of -32768", lambda x: _longest_without(x, lambda v: v == -32768)),
    Network("frames beyond 1e19", lambda x: _longest_without(x, lambda v: v > 1e19)),
    Network("one of many constants", lambda x: _longest_without(x, lambda v: v == -7.5), constants=(*range(2, 32), -7.5)),
    Network("large numbers that lead to no table", lambda ids: (
        recurrent(np.sin(ids[:, :, None] % 97 * np.arange(1, 5))) * (1 - 0.1 * (ids > 1000).any())), IDS),
    Network("padding that counts in a single row", _padding_counts_alone),
    Network("number of the row, beside a way round", lambda x: (
        x[:, :, :3] + recurrent(x) + 1e-2 * np.arange(len(x))[:, None, None])),
    Network("rows that are all zeros left out", lambda x: recurrent(x)[np.abs(x).sum(axis=(1, 2)) > 0]),
    Network("true rows in front", _true_rows_in_front),
    # in how much is answered
    Network("until all are done", _until_all_are_done),
]  # fmt: skip


def _own_longest(x: Array) -> Array:
    true = np.abs(x).sum(axis=2) > 0
    return masked_mean(recurrent(x), np.maximum(true.sum(axis=1), 1))


def _sorted_and_back(x: Array, lengths: Array) -> Array:
    order = np.argsort(-checked(lengths, x.shape[1]), kind="stable")
    return last(recurrent(x[order]), lengths[order])[np.argsort(order)]


def _attention_over_steps(x: Array) -> Array:
    y = recurrent(x)
    scores = np.exp(y[:, :, 0])
    return np.einsum("rs,rsf->rf", scores / scores.sum(axis=1, keepdims=True), y)


APART = [
    Network("every step", recurrent),
    Network("the last step", lambda x: recurrent(x)[:, -1]),
    Network("both ways", lambda x: np.concatenate([recurrent(x), recurrent(x[:, ::-1])[:, ::-1]], axis=2)),
    Network("its own frames of zeros", _own_longest),
    Network("layer norm", lambda x: _normalised(recurrent(x), (2,))),
    Network("instance norm", lambda x: _normalised(recurrent(x), (1,))),
    Network("attention over steps", _attention_over_steps),
    Network(
        "quantised by its own largest", lambda x: recurrent(_quantised(x, np.abs(x).max(axis=(1, 2), keepdims=True)))
    ),
    Network("its own NaN", lambda x: recurrent(np.nan_to_num(x))),
    Network("which class", lambda x: recurrent(x)[:, -1].argmax(axis=1).astype(float)[:, None]),
    Network("its own last step", lambda x, lengths: last(recurrent(x), checked(lengths, x.shape[1])), LENGTHS),
    Network("its own mean", lambda x, lengths: masked_mean(recurrent(x), checked(lengths, x.shape[1])), LENGTHS),
    Network("sorted by length and back", _sorted_and_back, LENGTHS),
    Network("tokens", lambda ids: recurrent(embedded(ids)), IDS),
    Network("tokens without padding", lambda ids: (recurrent(embedded(ids)) * (ids > 0)[:, :, None]).sum(axis=1), IDS),
    Network("a speaker", lambda x, speaker: recurrent(x) + np.sin(speaker)[:, None, None], SPEAKER),
    Network("a mask", lambda x, mask: recurrent(x * mask[:, :, None]), MASK),
    Network("a state", recurrent, STATE),
    Network("one number", lambda x: recurrent(x)[:, -1, 0]),
    Network("which class, one number", lambda x: recurrent(x)[:, -1].argmax(axis=1).astype(float)),
    Network("a mask of ones", lambda x, mask: last(recurrent(x), flags(mask)), FLOAT_MASK),
    Network("a mask of whole numbers", lambda x, mask: last(recurrent(x), flags(mask)), WHOLE_MASK),
    Network("float lengths", lambda x, lengths: last(recurrent(x), counts(lengths, x.shape[1])), FLOAT_LENGTHS),
    Network("shares", lambda x, lengths: last(recurrent(x), shares(lengths, x.shape[1])), FLOAT_LENGTHS),
    Network("what went in", lambda x: x[:, :, :3] + recurrent(x)),
    Network("hardly anything", lambda x: 1e-7 * recurrent(x)[:, -1]),
    Network("millions", lambda x: 1e6 * recurrent(x)[:, -1]),
]
