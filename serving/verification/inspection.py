"""What can be found out about a file that someone else has exported: its state, and where the rows are.

Names and shapes are read from the file; that rows do not touch each other is proved by running it: what happens to one row
along the axis of the rows must not move the answer of another. Nothing is guessed. Where the file leaves a choice, `Unclear`
says which, and what to say to settle it. A free axis alone proves nothing, since the steps of a sequence are free as
well; but a step does move the answers of those behind it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.backends.base import Contents
from serving.errors import RepositoryError
from serving.signature.axes import from_file
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import DTYPES, Tensors, TensorSpec
from serving.verification import hints as said
from serving.verification import padding, steps
from serving.verification.company import TOLERANCE
from serving.verification.golden import Sample
from serving.verification.hints import Hints, NaNAlone, Shape, Unclear
from serving.verification.rows import OWN_ANSWER, Reading, axes_of_rows, rows_axes
from serving.verification.state_pairs import state_pairs
from serving.verification.trials import NOTHING_SHOWN, ROWS, SIZES, Rows, Run, Trials


@dataclasses.dataclass(frozen=True)
class Findings:
    """The specification of the file, and samples in our layout with the file's own answers.

    `why_alone` says of a file whose rows are not batched what was seen of them; it is empty where no axis looks like rows.
    """

    spec: ModelSpec
    samples: Sequence[Sample]
    why_alone: str = ""


def unproved(
    inputs: Mapping[str, Stated],
    outputs: Mapping[str, Stated],
    digest: str = "",
    source: Mapping[str, Any] = MappingProxyType({}),
) -> ModelSpec:
    """A specification that claims no more than the file states: shapes as they are, one row at a time.

    `source` says who has stated it, where that was not the file itself.

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
        source=dict(source),
    )


def inspect(stated: ModelSpec, run: Run, hints: Hints, contents: Contents = NOTHING_SHOWN) -> Findings:
    """What holds of the file that `stated` (of `unproved`) describes, `run` computes, and `contents` shows without being run.

    Raises `Unclear` where a person has to decide, or where an output holds NaN whatever is asked, and `RepositoryError` for a
    hint that does not fit the file.
    """
    said.check(stated, hints)
    inputs = {tensor.name: hints.shapes.get(tensor.name, tensor.file_shape) for tensor in stated.inputs}
    trials = Trials(stated, inputs, run, hints, contents)
    state = state_pairs(stated, inputs, hints)
    trials.learn()
    rows, why_alone = _rows(trials, inputs, hints, contents)
    axes = rows or dict.fromkeys(inputs)
    answers = list(trials.answers(rows))
    _refuse_nan(trials, inputs, [answer for _, answer in answers])
    timed = steps.input_axes(trials, inputs, axes)
    specs = _Specs(stated, inputs, rows, timed, answers)
    spec = dataclasses.replace(
        stated,
        inputs=specs.inputs(),
        outputs=specs.outputs(),
        state=state,
        streamable=bool(state) and steps.streamable(trials, axes, timed, state, specs.timed_outputs()),
        batched=rows is not None,
        vocabulary=trials.ids.get(stated.inputs[0].name, 0),
        masks=padding.masked_by(trials, rows, timed, specs.timed_outputs()) if rows else None,
    )
    by_name = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    samples = []
    for sent, answer in answers:
        count = _count(sent, rows)
        given = {name: _for_rows(array, by_name[name], count) for name, array in sent.items()}
        samples.append(Sample(given, {name: from_file(array, by_name[name]) for name, array in answer.items()}))
    return Findings(spec, samples, why_alone)


def _rows(trials: Trials, inputs: Mapping[str, Shape], hints: Hints, contents: Contents) -> Reading:
    """Where the rows are. Of a file that answers NaN alone nothing can be seen, and it is that which is told then."""
    try:
        return rows_axes(trials, inputs, hints, contents)
    except RepositoryError:
        answers: list[Tensors] = []
        with contextlib.suppress(Unclear):  # it does not even take every size that it calls free
            answers += [answer for _, answer in trials.answers(None)]
        _refuse_nan(trials, inputs, answers)
        raise


def _refuse_nan(trials: Trials, names: Iterable[str], answers: Sequence[Tensors]) -> None:
    """Raises `Unclear` where an output holds NaN whatever is asked, of positive numbers and large ones too."""
    if not nan_alone(answers):
        return
    alone: Rows = dict.fromkeys(names)
    others = (trials.attempt(trials.sent(alone, 1, SIZES[0], kind, full=True)) for kind in OWN_ANSWER)
    if name := nan_alone([*answers, *filter(None, others)]):
        raise nan_whatever_is_asked(name)


def nan_alone(answers: Sequence[Tensors]) -> str:
    """The first output that holds NaN in each of the answers; empty if none does. No comparison would ever show that."""
    for name in answers[0] if answers else ():
        arrays = [answer[name] for answer in answers]
        if arrays[0].dtype.kind == "f" and all(np.isnan(array).any() for array in arrays):
            return name
    return ""


def nan_whatever_is_asked(name: str) -> NaNAlone:
    """The sentence about an output that holds NaN in every answer."""
    return NaNAlone(
        f"{name} holds NaN whatever is asked, of numbers about 0 too: are there NaN among the weights, as after a "
        "training that diverged? If it answers so by intention, say with --value or --samples what it is asked in use"
    )


def _count(sent: Tensors, rows: Mapping[str, int | None] | None) -> int:
    """How many rows there are in what was sent."""
    return next((sent[name].shape[axis] for name, axis in (rows or {}).items() if axis is not None), 1)


def _for_rows(array: npt.NDArray[Any], tensor: TensorSpec, rows: int) -> npt.NDArray[Any]:
    ours = from_file(array, tensor)
    return np.repeat(ours, rows, axis=0) if tensor.rows_axis is None else ours


@dataclasses.dataclass(frozen=True)
class _Specs:
    """The tensors of the specification, rows first, from what was stated and what was seen."""

    stated: ModelSpec
    shapes: Mapping[str, Shape]
    rows: Mapping[str, int | None] | None
    timed: Mapping[str, int]
    answers: Sequence[tuple[Tensors, Tensors]]

    def inputs(self) -> tuple[TensorSpec, ...]:
        made = []
        for tensor in self.stated.inputs:
            shape, axis = list(self.shapes[tensor.name]), self.rows[tensor.name] if self.rows else None
            if axis is not None:
                del shape[axis]
            rows = -1 if self.rows else 1
            timed = _ours(self.timed.get(tensor.name), axis)
            made.append(TensorSpec(tensor.name, tensor.datatype, (rows, *shape), axis, timed))
        return tuple(made)

    def timed_outputs(self) -> Mapping[str, int | None]:
        """By output its axis of steps in the file's own layout."""
        return {t.name: steps.output_axis(t.name, self.timed, self.answers) for t in self.stated.outputs}

    def outputs(self) -> tuple[TensorSpec, ...]:
        axes: Mapping[str, int] = {}
        if self.rows:
            by_rows: dict[int, Tensors] = {}
            for sent, answer in self.answers:
                by_rows.setdefault(_count(sent, self.rows), answer)
            axes = axes_of_rows(by_rows[ROWS[0]], by_rows[ROWS[0] - 1], ROWS[0]) or {}
        made = []
        for tensor in self.stated.outputs:
            seen = [answer[tensor.name].shape for _, answer in self.answers]
            if len({len(shape) for shape in seen}) != 1:
                raise RepositoryError(f"the output {tensor.name} has another rank for other sizes: {sorted(set(seen))}")
            # Not what the file states, which may be a size that its exporter has traced with and that it does not keep to.
            shape = [sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*seen, strict=True)]
            axis = axes.get(tensor.name)
            if axis is not None:
                del shape[axis]
            timed = _ours(self.timed_outputs()[tensor.name], axis)
            made.append(TensorSpec(tensor.name, tensor.datatype, (-1 if self.rows else 1, *shape), axis, timed))
        return tuple(made)


def _ours(axis: int | None, rows_axis: int | None) -> int | None:
    """Where an axis of the file is when the rows are in front."""
    if axis is None:
        return None
    return axis + 1 if rows_axis is None or axis < rows_axis else axis
