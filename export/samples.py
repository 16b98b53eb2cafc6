"""A person's own samples: what a network is asked in use, and, if it is known, what it answers.

They come as an .npz, in the network's own layout: arrays by the names of its inputs and outputs are one sample; several
have the keys of golden.npz, `0/in/x` and `0/out/y`, `1/in/x`, and so on.
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export import float64
from export.errors import ExportError
from serving.backends.base import first_line
from serving.signature.axes import from_file
from serving.signature.spec import ModelSpec
from serving.signature.tensors import Tensors, TensorSpec
from serving.verification import golden, npz
from serving.verification.golden import Sample
from serving.verification.hints import Hints
from serving.verification.trials import Run

_SEVERAL = re.compile(r"(?P<number>\d+)/(?P<side>in|out)/(?P<name>.+)")
_MOST_BYTES = npz.MAX_BYTES

Wide = Callable[[Tensors], Tensors | None]  # a network's answers in float64, in its own layout; None where it cannot
Arrays = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class UserSample:
    """Inputs and the answers to them, none of those if nothing is said of them; in the network's own layout."""

    inputs: Arrays
    answers: Arrays


@dataclasses.dataclass(frozen=True)
class UserSamples:
    """What a file holds: in `sided` inputs and outputs are told apart, `plain` is one sample whose names alone tell them."""

    path: Path
    sided: Sequence[UserSample] = ()
    plain: Mapping[str, npt.NDArray[Any]] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> UserSamples:
        """Nothing is unpickled. Raises `ExportError` for what is no .npz of arrays, and for too much of it."""
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > _MOST_BYTES:
                raise ExportError(
                    f"{path} holds {unpacked} bytes of samples; at most {_MOST_BYTES} travel with a version"
                )
            with np.load(path, allow_pickle=False) as arrays:
                by_key = {key: arrays[key] for key in arrays.files}
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, ExportError):
                raise
            raise ExportError(
                f"{path} cannot be read as samples: {error}; write them with numpy.savez(FILE, x=...)"
            ) from error
        keys = {key: _SEVERAL.fullmatch(key) for key in by_key}
        if not by_key:
            raise ExportError(f"{path} holds no array")
        if not any(keys.values()):
            return cls(path, plain={name: _elements(array) for name, array in by_key.items()})
        sided: dict[int, UserSample] = {}
        for key, found in keys.items():
            if found is None:
                raise ExportError(
                    f"{path}: {key!r} is no key beside others like 0/in/x: name all of them NUMBER/in/NAME or NUMBER/out/NAME"
                )
            sample = sided.setdefault(int(found["number"]), UserSample({}, {}))
            (sample.inputs if found["side"] == "in" else sample.answers)[found["name"]] = _elements(by_key[key])
        return cls(path, [sided[number] for number in sorted(sided)])

    def fitting(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], hints: Hints) -> list[UserSample]:
        """The samples, with the datatypes of these tensors. Raises `ExportError`, naming the array that does not fit."""
        entering, leaving = ({tensor.name: tensor for tensor in side} for side in (inputs, outputs))
        samples = list(self.sided)
        if self.plain:
            if both := sorted(set(entering) & set(leaving) & set(self.plain)):
                raise ExportError(
                    f"{self.path}: {both[0]} is the name of an input and of an output; say which with the keys 0/in/{both[0]} "
                    f"and 0/out/{both[0]}"
                )
            answers = {name: array for name, array in self.plain.items() if name in leaving}
            samples = [UserSample({name: a for name, a in self.plain.items() if name not in leaving}, answers)]
        made = []
        for sample in samples:
            if missing := [name for name in entering if name not in sample.inputs]:
                raise ExportError(
                    f"{self.path} lacks the input {', '.join(missing)}; the inputs are {', '.join(entering)}"
                )
            for side, known, given in (("input", entering, sample.inputs), ("output", leaving, sample.answers)):
                if unknown := [name for name in given if name not in known]:
                    others = f"the inputs are {', '.join(entering)}, the outputs {', '.join(leaving)}"
                    raise ExportError(f"{self.path}: there is no {side} {unknown[0]!r}; {others}")
            made.append(
                UserSample(
                    {
                        name: self._fitted(array, entering[name], hints.shapes.get(name))
                        for name, array in sample.inputs.items()
                    },
                    {
                        name: self._fitted(array, leaving[name], (-1,) * array.ndim)
                        for name, array in sample.answers.items()
                    },
                )
            )
        return made

    def _fitted(self, array: npt.NDArray[Any], tensor: TensorSpec, shape: tuple[int, ...] | None) -> npt.NDArray[Any]:
        wanted = tensor.file_shape if shape is None else shape
        if (
            array.ndim != len(wanted)
            or any(w not in (-1, s) for s, w in zip(array.shape, wanted, strict=True))
            or not array.size
        ):
            raise ExportError(
                f"{self.path}: {tensor.name} has the shape {list(array.shape)}; it must be {list(wanted)} (-1 is any size)"
            )
        # Whole numbers become floats, and either the same of another width; nothing else is turned without a word.
        kinds = {"f": "fiu", "i": "iu", "u": "iu"}.get(tensor.dtype.kind, tensor.dtype.kind)
        with np.errstate(over="ignore", invalid="ignore"):
            made = array.astype(tensor.dtype) if array.dtype.kind in kinds else None
        if made is None or (array.dtype.kind in "iu" and not np.array_equal(made, array)):
            raise ExportError(
                f"{self.path}: {tensor.name} is {array.dtype}, and {tensor.datatype} holds other values than that"
            )
        return made


NO_SAMPLES = UserSamples(Path())


def checked(
    samples: Sequence[UserSample],
    path: Path,
    run: Run,
    names: Sequence[str],
    tolerance: float,
    wide: Wide | None = None,
) -> list[Tensors]:
    """What `run` answers to each, in the network's own layout; `names` are all outputs.

    Raises `ExportError` where that is further than the tolerance from the answers given, with what `wide`, the network in
    float64, tells of that, and where it fails.
    """
    made = []
    missed: list[tuple[float, str]] = []
    for number, sample in enumerate(samples):
        what = f"{path}, sample {number}"
        try:
            answers = run(sample.inputs, names)
        except ExportError:
            raise
        except Exception as error:  # whatever a network raises
            raise ExportError(f"{what}: the network fails on it: {first_line(error)}") from error
        for name, given in sample.answers.items():
            if answers[name].shape != given.shape:
                raise ExportError(
                    f"{what}: {name} is given as {list(given.shape)}, and the answer is {list(answers[name].shape)}"
                )
            apart = golden.disagreement(answers[name], given)
            if apart > tolerance:
                missed.append((apart, f"{what}: {name} is another answer than the one given"))
        made.append(answers)
    if missed:
        apart, sentence = max(missed)
        raise ExportError(
            f"{sentence}: they are {apart:.3g} apart (|a - b| / max(1, |b|)), and {tolerance:.3g} is allowed; "
            f"{float64.told(apart, _natural(samples, made, wide))}; or leave the answers out"
        )
    return made


def _natural(samples: Sequence[UserSample], answers: Sequence[Tensors], wide: Wide | None) -> float | None:
    """How far the answers are from those in float64; None where those cannot be had."""
    if wide is None:
        return None
    worst = 0.0
    for sample, answer in zip(samples, answers, strict=True):
        widened = wide(sample.inputs)
        if widened is None:
            return None
        worst = max([worst, *(golden.disagreement(array, widened[name]) for name, array in answer.items())])
    return worst if np.isfinite(worst) else None


def rows_first(samples: Sequence[UserSample], answers: Sequence[Tensors], spec: ModelSpec) -> list[Sample]:
    """Golden samples of them. What all rows share stands once for each row."""
    tensors = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    made = []
    for sample, answer in zip(samples, answers, strict=True):
        inputs = {name: from_file(array, tensors[name]) for name, array in sample.inputs.items()}
        rows = max(len(array) for array in inputs.values())
        inputs = {
            name: array if len(array) == rows else np.repeat(array, rows, axis=0) for name, array in inputs.items()
        }
        made.append(Sample(inputs, {name: from_file(array, tensors[name]) for name, array in answer.items()}))
    return made


def _elements(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Texts as the bytes of UTF-8, which is what BYTES tensors hold."""
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(object) if array.dtype.kind == "S" else array
