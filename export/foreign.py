"""A network with a signature of its own: what is found out about it, and files that are held to its own answers.

Shared by `torch_modules` and `keras_models`. One fact that surprises: the axis of the rows and the sizes that may change are
found on the network itself, before any file is written.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from export.publish import Version, Written, check_name, check_version, place, size_of, work_folder
from serving import backends, findings, golden
from serving import spec as specification
from serving.backends.base import Options, first_line
from serving.errors import VerificationFailed
from serving.findings import Hints, Run
from serving.layout import laid_out
from serving.signature import Stated
from serving.spec import BF16, DTYPES, ModelSpec

_DATATYPES = {dtype: name for name, dtype in DTYPES.items() if dtype != BF16}

SAME = 1e-6  # a network that is a plain stack differs from the canonical one by rounding alone

Write = Callable[[ModelSpec, Path], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Where a version goes and what is said of it: `described` says where the network comes from, JSON-ready."""

    repository: Path
    name: str
    version: int | None = None
    tolerance: float = findings.TOLERANCE
    described: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Raises `ExportError` when a version of that name or number cannot be written."""
        check_name(self.name)
        if self.version is not None:
            check_version(self.repository / self.name, self.version)


def publish(
    stated: ModelSpec, run: Run, writers: Mapping[str, tuple[str, Write]], hints: Hints, target: Target, advice: str
) -> tuple[Version, ModelSpec]:
    """Writes a version with every format of `writers` (its backend and what writes it), proved against `run`.

    `stated` is of `findings.unproved`; `advice` says what to do where a file bakes in a choice. Raises `ExportError`,
    `Unclear` when a person has to decide, and `OSError`; the repository holds no part of the version then.
    """
    found = findings.find(stated, run, hints)
    made = {"formats": list(writers), "lstm-serving": importlib.metadata.version("lstm-serving")}
    spec = dataclasses.replace(found.spec, tolerance=target.tolerance, source={**target.described, "export": made})
    target.repository.mkdir(parents=True, exist_ok=True)
    with work_folder(target.repository) as work:
        folder = work / "version"
        folder.mkdir()
        written = []
        for form, (backend, write) in writers.items():
            artifact = folder / backends.module(backend).FILE_NAME
            write(spec, artifact)
            written.append(Written(form, size_of(artifact), _proved(form, backend, artifact, spec, found, advice)))
        golden.write_samples(folder / golden.FILE_NAME, list(found.samples))
        (folder / specification.FILE_NAME).write_text(spec.to_json(), encoding="utf-8")
        path = place(folder, target.repository / target.name, target.version, "")
    return Version(path, tuple(written)), spec


def told_rows(spec: ModelSpec) -> str:
    """What was found out about its rows, for people."""
    if spec.batched:
        return "rows proved apart, with several rows and sizes"
    return "one row at a time, never batched: no axis was found along which rows do not touch each other"


def ones(inputs: Mapping[str, Stated]) -> dict[str, npt.NDArray[Any]]:
    """Inputs with 5 along every free axis, so that whatever must be equal is. Raises `ExportError`."""
    sent = {}
    for name, (datatype, shape) in inputs.items():
        if datatype is None or shape is None or datatype == "BYTES":
            raise ExportError(f"the input {name} needs a datatype of numbers and a shape")
        sent[name] = np.ones([5 if size == -1 else size for size in shape], DTYPES[datatype])
    return sent


def example(spec: ModelSpec, rows: int, size: int) -> dict[str, npt.NDArray[Any]]:
    """Inputs in the network's own layout: `rows` rows, `size` along every other free axis."""
    made = {}
    for tensor in spec.inputs:
        sizes = [size if s == -1 else s for s in tensor.file_shape]
        if tensor.rows_axis is not None:
            sizes[tensor.rows_axis] = rows
        made[tensor.name] = np.ones(sizes, tensor.dtype)
    return made


def datatype(name: str, array: npt.NDArray[Any]) -> str:
    """The protocol's name of an output's datatype. Raises `ExportError` when it has none."""
    if array.dtype not in _DATATYPES:
        raise ExportError(f"the output {name} is of {array.dtype}, which the protocol does not know")
    return _DATATYPES[array.dtype]


def names_of_outputs(given: Sequence[str], count: int) -> tuple[str, ...]:
    """The names as given, or y, y1, y2 ... Raises `ExportError` when there are more or fewer than outputs."""
    names = tuple(given) or tuple("y" if number == 0 else f"y{number}" for number in range(count))
    if len(names) != count:
        raise ExportError(f"the network returns {count} tensors, but {len(names)} are named: {', '.join(names)}")
    return names


def _proved(
    form: str, backend_name: str, artifact: Path, spec: ModelSpec, found: findings.Findings, advice: str
) -> float:
    """The largest difference of the file from the network over all rows and sizes that were tried."""
    module = backends.module(backend_name)
    backend = laid_out(module.load(artifact, spec, "cpu", Options()), spec)
    worst = 0.0
    try:
        for sample in found.samples:
            sizes = ", ".join(f"{name} {list(array.shape)}" for name, array in sample.inputs.items())
            try:
                got = backend.run(sample.inputs, list(sample.outputs))
                worst = max(worst, golden.check_agreement(form, got, sample.outputs, spec.tolerance))
            except VerificationFailed as error:
                raise ExportError(
                    f"{error}, with {sizes}: an `if` or a loop of Python that depends on the data has been baked in; {advice}"
                ) from error
            except Exception as error:
                raise ExportError(
                    f"the {form} file has frozen a size that the network leaves free: with {sizes} it says: "
                    f"{first_line(error)}; compute sizes from the tensors (x.shape[1]), not from "
                    "numbers of Python"
                ) from error
    finally:
        backend.close()
    return worst
