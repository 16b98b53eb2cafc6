"""Why a file answers otherwise than the network that it was written of: looked into before anything is said of it.

The file and the network are asked again, for other values and for other sizes. What is said follows from what they answer;
where nothing follows, what was seen is said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export import float64
from export.samples import Wide
from serving.backends.base import Backend, first_line
from serving.signature.axes import from_file, to_file
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors
from serving.verification import golden
from serving.verification.golden import Sample
from serving.verification.trials import Run

ROUNDING = 1e-3  # where nothing better is known: a choice that was baked in shows by more than this
ROWS, SIZE = 2, 9  # of the inputs, all of them 1, with which torch writes a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do where a file has baked in a choice that depends on values (`branch`), or `sizes`."""

    branch: str
    sizes: str


@dataclasses.dataclass(frozen=True)
class Network:
    """The network that a file must equal, with the rows first, as `spec` has it; `wide` computes it in float64."""

    spec: ModelSpec
    ask: Run
    wide: Wide | None = None

    def run(self, inputs: Tensors) -> Tensors:
        """Raises whatever the network raises."""
        return self._ours(self.ask(self._theirs(inputs), [tensor.name for tensor in self.spec.outputs]))

    def natural(self, samples: Sequence[Sample]) -> float | None:
        """How far the answers of the samples are from those in float64; None where those cannot be had."""
        worst = 0.0
        for sample in samples if self.wide else ():
            assert self.wide
            answers = self.wide(self._theirs(sample.inputs))
            if answers is None:
                return None
            ours = self._ours(answers)
            worst = max([worst, *(golden.disagreement(sample.outputs[name], ours[name]) for name in sample.outputs)])
        return worst if self.wide and np.isfinite(worst) else None

    def _theirs(self, inputs: Tensors) -> Tensors:
        return {tensor.name: to_file(inputs[tensor.name], tensor) for tensor in self.spec.inputs}

    def _ours(self, outputs: Tensors) -> Tensors:
        return {tensor.name: from_file(outputs[tensor.name], tensor) for tensor in self.spec.outputs}


def example(spec: ModelSpec, rows: int, size: int) -> dict[str, npt.NDArray[Any]]:
    """Inputs full of ones in the network's own layout: `rows` rows, `size` along every other free axis."""
    made = {}
    for tensor in spec.inputs:
        sizes = [size if s == -1 else s for s in tensor.file_shape]
        if tensor.rows_axis is not None:
            sizes[tensor.rows_axis] = rows
        made[tensor.name] = np.ones(sizes, tensor.dtype)
    return made


def held(form: str, file: Backend, network: Network, tried: Sequence[Sample], advice: Advice) -> tuple[float, str]:
    """The largest difference of the file from the network over all that was tried, and a sentence if it is not allowed.

    The sentence is empty where it is allowed. A file that fails, or answers in another shape, differs infinitely.
    """
    gaps = [_gap(file, sample.inputs, sample.outputs) for sample in tried]
    worst = max(gap for gap, _ in gaps)
    if worst <= network.spec.tolerance:
        return worst, ""
    sample, (gap, said) = next(
        (sample, seen) for sample, seen in zip(tried, gaps, strict=True) if seen[0] > network.spec.tolerance
    )
    sizes = told_sizes(sample.inputs, network.spec)
    what = f"the {form} file {said}" if said else (
        f"{form}: {_which(file, sample)} differs from the network by {gap:.3g} (|a - b| / max(1, |b|)), at most "
        f"{network.spec.tolerance:.3g} is allowed"
    )  # fmt: skip
    return worst, f"{what}, with {sizes}: {_why(file, network, tried, sample, worst, advice)}"


def told_sizes(inputs: Tensors, spec: ModelSpec) -> str:
    """Names and shapes; a network that takes one row at a time knows nothing of an axis for it."""
    return ", ".join(f"{name} {list((array if spec.batched else array[0]).shape)}" for name, array in inputs.items())


def _why(file: Backend, network: Network, tried: Sequence[Sample], sample: Sample, worst: float, advice: Advice) -> str:
    if _by_chance(file, sample):
        return "the file answers the same inputs differently the second time: it draws something at random"
    no_rounding = ""
    if np.isfinite(worst):
        natural = network.natural(tried)
        if (worst < ROUNDING) if natural is None else float64.is_rounding(worst, natural):
            return float64.told(worst, natural)
        no_rounding = f"{float64.told(worst, natural)}; " if natural is not None else ""
    return no_rounding + (
        _depends(file, network, sample, advice)
        or "it differs for all other values and sizes that were tried, those that it was written with among them, so that "
        "neither an `if` nor a size explains it: some operation is another one in the file; take another format, or "
        "write the operation in another way"
    )


def _depends(file: Backend, network: Network, sample: Sample, advice: Advice) -> str:
    """Whether values or sizes decide; "" where the file is wrong for what it was written with as well."""
    theirs = example(network.spec, ROWS, SIZE)
    written = {tensor.name: from_file(theirs[tensor.name], tensor) for tensor in network.spec.inputs}
    here, there = [], []  # whether they agree for other values: of the sample's sizes, and of those of the example
    for values in _other_values(sample.inputs):
        here.append(_agree(file, network, values))
        there.append(_agree(file, network, {name: _resized(values[name], a.shape) for name, a in written.items()}))
    at, as_written = told_sizes(written, network.spec), _agree(file, network, written)
    if any(here):
        return (
            "it agrees for other values of these sizes, so that the values decide, as where an `if`, a loop or a number of "
            f"Python that depends on them has been baked in; {advice.branch}"
        )
    if all(there) and as_written:
        return (
            f"it agrees with {at}, whatever the values, so that the sizes decide: one has been baked in; {advice.sizes}"
        )
    if any(there) or as_written:
        return (
            f"it agrees with {at} for some values, so that values or sizes decide, and something that depends on them has been "
            f"baked in: for values, {advice.branch}; for sizes, {advice.sizes}"
        )
    return ""


def _other_values(inputs: Tensors) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Of the same sizes: other signs and magnitudes of floats, other orders of everything."""
    dealer = np.random.default_rng(0)
    for turn in (np.negative, np.abs, lambda array: -np.abs(array), lambda array: array / 10):
        yield {name: turn(array) if array.dtype.kind == "f" else array for name, array in inputs.items()}
    for _ in range(2):
        yield {name: dealer.permutation(array.reshape(-1)).reshape(array.shape) for name, array in inputs.items()}


def _agree(file: Backend, network: Network, inputs: Tensors) -> bool:
    """Whether both answer the same; also if the network itself does not take that, which says nothing of the file."""
    try:
        expected = network.run(inputs)
    except Exception:  # noqa: BLE001 - whatever a network raises
        return False
    return _gap(file, inputs, expected)[0] <= network.spec.tolerance


def _gap(file: Backend, inputs: Tensors, expected: Tensors) -> tuple[float, str]:
    """The largest difference; where it is infinite for it, what the file does instead of answering."""
    try:
        got = file.run(inputs, list(expected))
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises
        return float("inf"), f"fails: {said(error)}"
    for name, array in expected.items():
        if got[name].shape != array.shape:
            return float("inf"), f"answers {name} in the shape {list(got[name].shape)} and not {list(array.shape)}"
    gaps = {name: golden.disagreement(got[name], array) for name, array in expected.items()}
    worst = max(gaps, key=lambda name: gaps[name])
    return gaps[worst], "" if np.isfinite(
        gaps[worst]
    ) else f"answers {worst} with NaN or infinity where the network does not, or the other way round"


def said(error: Exception) -> str:
    """The line that says what happened; TorchScript puts its own trace in front of it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if "TorchScript interpreter" in str(error) else first_line(error)


def _which(file: Backend, sample: Sample) -> str:
    got = file.run(sample.inputs, list(sample.outputs))
    return max(sample.outputs, key=lambda name: golden.disagreement(got[name], sample.outputs[name]))


def _by_chance(file: Backend, sample: Sample) -> bool:
    try:
        first, second = (file.run(sample.inputs, list(sample.outputs)) for _ in range(2))
    except Exception:  # noqa: BLE001 - whatever a runtime raises
        return False
    return any(golden.disagreement(first[name], second[name]) > 0 for name in first)


def _resized(array: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """The same values, repeated or left out, in another shape of the same rank."""
    for axis, size in enumerate(shape):
        array = np.take(array, np.arange(size) % array.shape[axis], axis)
    return array
