"""Golden samples: inputs, and what the trained model itself answered to them, kept beside every version.

The exporter writes them; the server replays them through the very backend that will serve, on every load. Agreement is
relative above 1 and absolute below, `|a - b| <= tolerance * max(1, |b|)`, everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import RepositoryError, VerificationFailed
from serving.machine import background
from serving.signature.spec import ModelSpec
from serving.signature.tensors import BF16, Tensors
from serving.verification import npz

FILE_NAME = "golden.npz"
# Products of TF32 are off by up to 2^-11 of their factors; a few hundred steps of an LSTM, whose gates are bounded, keep
# well below this.
TF32_TOLERANCE = 1e-2


def disagreement(got: npt.NDArray[Any], expected: npt.NDArray[Any], beside: float | None = None) -> float:
    """The largest `|got - expected| / max(1, |expected|)`; infinite where shapes differ or one of them is not a number.

    The one measure of agreement, used while exporting, while loading and for files of others. With `beside` a difference
    is measured against that magnitude instead; beside 0 every difference is infinite.
    """
    if got.shape != expected.shape:
        return float("inf")
    if got.size == 0:
        return 0.0
    if got.dtype.kind == "O" or expected.dtype.kind == "O":  # strings agree or they do not
        return 0.0 if np.array_equal(got, expected) else float("inf")
    a, b = (_numbers(np.atleast_1d(array)).astype(np.float64) for array in (got, expected))
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(a - b) / (np.maximum(1.0, np.abs(b)) if beside is None else beside)
    difference[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    return float(np.nan_to_num(difference, nan=np.inf).max())


def _numbers(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What can be calculated with: bfloat16 is the upper half of a float32."""
    if array.dtype != BF16:
        return array
    return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


@dataclasses.dataclass(frozen=True)
class Sample:
    """One golden sample: inputs, and what the trained model itself answered."""

    inputs: Tensors
    outputs: Tensors


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Writes `golden.npz`: arrays named `<sample>/in/<tensor>` and `<sample>/out/<tensor>`.

    Strings are kept at a fixed width, which loses NULs at their end.
    """
    arrays = {f"{i}/in/{name}": array for i, sample in enumerate(samples) for name, array in sample.inputs.items()}
    arrays |= {f"{i}/out/{name}": array for i, sample in enumerate(samples) for name, array in sample.outputs.items()}
    with path.open("wb") as file:
        np.savez_compressed(file, **{key: _plain(array) for key, array in arrays.items()})  # type: ignore[arg-type]


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As it can be kept without pickling."""
    return array.astype("S") if array.dtype.kind == "O" else array


def read_samples(path: Path) -> list[Sample]:
    """Reads what `write_samples` wrote; nothing is unpickled. Raises `RepositoryError` naming the file."""
    inputs: dict[int, dict[str, npt.NDArray[Any]]] = {}
    outputs: dict[int, dict[str, npt.NDArray[Any]]] = {}
    try:
        for key, array in npz.read(path):
            number, side, name = _place(path, key)
            {"in": inputs, "out": outputs}[side].setdefault(number, {})[name] = (
                array.astype(object) if array.dtype.kind == "S" else array
            )
    except FileNotFoundError as error:
        raise RepositoryError(f"{path} is missing: the version is incomplete; export it again") from error
    if not inputs or inputs.keys() != outputs.keys():
        raise RepositoryError(f"{path} holds no complete golden sample: export the version again")
    return [Sample(inputs[i], outputs[i]) for i in sorted(inputs)]


def _place(path: Path, key: str) -> tuple[int, str, str]:
    """Number, side and tensor of `3/in/x`."""
    number, _, rest = key.partition("/")
    side, _, name = rest.partition("/")
    if not (number.isascii() and number.isdigit() and len(number) < 9 and side in ("in", "out") and name):
        raise RepositoryError(f"{path} holds {key!a}, which is no part of a golden sample, as 0/in/x and 0/out/y are")
    return int(number), side, name


def check_agreement(what: str, got: Tensors, expected: Tensors, tolerance: float) -> float:
    """The largest disagreement over all of `expected`; raises `VerificationFailed` above `tolerance`, saying by how much."""
    worst = 0.0
    for name, reference in expected.items():
        difference = disagreement(got[name], reference)
        if difference > tolerance:
            raise VerificationFailed(
                f"{what}: {name} differs from the trained model by {difference:.3g} "
                f"(|a - b| / max(1, |b|)); at most {tolerance:.3g} is allowed"
            )
        worst = max(worst, difference)
    return worst


def tolerance(spec: ModelSpec, *, tf32: bool) -> float:
    """How far a backend may be from the trained model: the spec's tolerance, or that of TF32 where it is in use."""
    return max(spec.tolerance, TF32_TOLERANCE) if tf32 else spec.tolerance


def replay(
    run: Callable[[Tensors, Sequence[str]], Tensors],
    spec: ModelSpec,
    samples: Sequence[Sample],
    allowed: float,
    what: str,
) -> float:
    """Asks `run` (a backend's) for every output of every sample; returns the largest disagreement.

    Raises `VerificationFailed`, beginning with `what`, if it is above `allowed`, if `run` fails, and where a sample does
    not hold every output of the model.
    """
    names = [tensor.name for tensor in spec.outputs]
    worst, pauses = 0.0, background.Pauses()
    for sample in samples:
        pauses.look()
        if unsaid := [name for name in names if name not in sample.outputs]:
            raise VerificationFailed(f"{what}: a golden sample says nothing of {', '.join(unsaid)}; export it again")
        if not all(array.size for array in sample.inputs.values()):
            raise VerificationFailed(f"{what}: a golden sample has an input without elements; export it again")
        if unlike := _unlike(sample, spec):
            raise VerificationFailed(f"{what}: {unlike}")
        try:
            got = run(sample.inputs, names)
        except Exception as error:
            raise VerificationFailed(
                f"{what}: cannot run its golden samples: {type(error).__name__}: {error}"
            ) from error
        worst = max(worst, check_agreement(what, got, sample.outputs, allowed))
    return worst


def _unlike(sample: Sample, spec: ModelSpec) -> str:
    """Which tensor of a sample is not as the specification says, which somebody may have edited; "" if all are."""
    for arrays, tensors in ((sample.inputs, spec.inputs), (sample.outputs, spec.outputs)):
        for tensor in tensors:
            array = arrays.get(tensor.name)
            if array is None:
                return f"a golden sample says nothing of {tensor.name}; export it again"
            fits = len(array.shape) == len(tensor.shape) and all(
                fixed in (-1, size) for size, fixed in zip(array.shape, tensor.shape, strict=True)
            )
            if not fits or array.dtype != tensor.dtype:
                return (
                    f"spec.json says that {tensor.name} is {tensor.datatype} {list(tensor.shape)}, and a golden sample has it as "
                    f"{array.dtype} {list(array.shape)}: put back what the exporter wrote, or export it again"
                )
    return ""


def longest(samples: Sequence[Sample]) -> Sample:
    """The sample with the most elements in a row, which is the one with the most steps."""
    return max(samples, key=lambda sample: sum(array.size // len(array) for array in sample.inputs.values()))


def with_rows(inputs: Tensors, rows: int) -> Tensors:
    """The rows of `inputs` over and over until there are `rows`, every input alike, each row with its own length and state.

    Raises `ValueError` where an input has no row to repeat.
    """
    if empty := [name for name, array in inputs.items() if not len(array)]:
        raise ValueError(f"{', '.join(empty)} have no row to repeat")
    return {name: array[np.arange(rows) % len(array)] for name, array in inputs.items()}
