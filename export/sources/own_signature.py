"""A network with a signature of its own: finds out about it, writes its files, and holds them to the network's answers.

`torch_modules` and `keras_models` share this. The axis of the rows and the sizes that may change are found on the
network itself, before any file is written.
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
from export.sources import plain
from export.versions import Target, Version, Written, begun, finish
from serving import backends
from serving.backends.base import Contents, Options, artifact_bytes, first_line
from serving.backends.rows_first import laid_out
from serving.errors import RepositoryError, VerificationFailed
from serving.signature.axes import from_file, to_file
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import BF16, DTYPES, Tensors
from serving.verification import golden, inspection
from serving.verification.hints import Hints, value_for
from serving.verification.rows import TOLERANCE
from serving.verification.trials import NOTHING_SHOWN, Run

_DATATYPES = {dtype: name for name, dtype in DTYPES.items() if dtype != BF16}

Write = Callable[[ModelSpec, Path], str]  # returns how the file came about, where that explains a wrong answer, else ""
ROUNDING = 1e-3  # a choice that was baked in shows by more than this


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do where a file has baked in a `branch`, or `sizes`."""

    branch: str
    sizes: str


def publish(
    stated: ModelSpec, run: Run, writers: Mapping[str, tuple[str, Write]], hints: Hints, target: Target, advice: Advice
) -> tuple[Version, ModelSpec]:
    """Writes a version with every format of `writers` (its backend and what writes it), proved against `run`.

    `stated` is what `inspection.unproved` makes of the network. Raises `ExportError`, `Unclear` when a person has to
    decide, and `OSError`; the repository holds no part of the version then.
    """
    found = find(stated, run, hints)
    made = {"formats": list(writers), "lstm-serving": importlib.metadata.version("lstm-serving")}
    spec = dataclasses.replace(found.spec, tolerance=target.tolerance, source={**target.described, "export": made})
    with begun(target.repository) as folder:
        written = []
        tried = [*found.samples, *_longer(spec, found.samples[0], run)]
        for form, (backend, write) in writers.items():
            artifact = folder / backends.module(backend).FILE_NAME
            note = write(spec, artifact)
            try:
                difference = _proved(form, backend, artifact, spec, tried, advice)
            except ExportError as error:
                raise ExportError(f"{error}{note and f' ({note})'}") from error
            written.append(Written(form, artifact_bytes(artifact), difference))
        path = finish(folder, target.repository / target.name, target.version, spec, found.samples)
    return Version(path, tuple(written)), spec


def find(stated: ModelSpec, run: Run, hints: Hints, contents: Contents = NOTHING_SHOWN) -> inspection.Findings:
    """`inspection.inspect` for a network or a file that may raise anything. Raises what that raises, and `ExportError`."""

    def told(sent: Tensors, wanted: Sequence[str]) -> Tensors:
        try:
            return run(sent, wanted)
        except ExportError:
            raise
        except Exception as error:  # whatever a network raises
            raise RuntimeError(_said(error)) from error

    try:
        return inspection.inspect(stated, told, hints, contents)
    except RuntimeError as error:
        raise ExportError(
            f"it runs on some rows and fails when only the values of one have changed: {error}; let it take "
            "rows in any order (pack_padded_sequence with enforce_sorted=False), or state what an input may hold: "
            "--value NAME=NUMBER"
        ) from error


def told_rows(spec: ModelSpec) -> str:
    """What was found out about its rows, for people."""
    if spec.batched:
        return "rows proved apart, with several rows and sizes"
    return (
        "one row at a time, never batched: no axis was found along which every row moves its own answer and no other "
        "(usually for a mean, softmax or sort over the rows, an LSTM without batch_first, a number of rows that is fixed in the "
        "file, an answer that is as long as the longest row, as of pad_packed_sequence without total_length, or because "
        "numbers about 0 all get the same answer)"
    )


def first_answers(
    run: Callable[[Mapping[str, npt.NDArray[Any]]], list[npt.NDArray[Any]]],
    inputs: Mapping[str, Stated],
    hints: Hints,
    where: str,
) -> list[npt.NDArray[Any]]:
    """What a network answers to inputs full of ones. Every free axis has size 5, so that sizes which must be equal are.

    `where` names what declares the inputs. Raises `ExportError` when the network does not run, and when it answers
    otherwise the second time.
    """
    sent = {}
    for name, (datatype, shape) in inputs.items():
        if datatype is None or shape is None or datatype == "BYTES":
            raise ExportError(f"the input {name} needs a datatype of numbers and a shape")
        sizes = [5 if size == -1 else size for size in hints.shapes.get(name, shape)]
        sent[name] = np.full(sizes, value_for(hints.values.get(name, 1), DTYPES[datatype]), DTYPES[datatype])
    try:
        answers, again = run(sent), run(sent)
    except ExportError:
        raise
    except Exception as error:
        declared = ", ".join(f"{name}:{datatype}{list(shape or ())}" for name, (datatype, shape) in inputs.items())
        raise ExportError(
            f"the network does not run on what {where} says ({declared}, tried with {_sizes(sent)}): {first_line(error)}; let "
            "it take any size along a free axis (x.shape[0], not a number), or state the one that it takes: --shape NAME:SIZES"
        ) from error
    if any(golden.disagreement(a, b) > TOLERANCE for a, b in zip(again, answers, strict=True)):
        raise ExportError(
            "the network answers the same inputs differently the second time: it draws something at random (dropout or noise "
            "while it answers) or keeps something from call to call; take the chance out, and let a state be an input and "
            "an output"
        )
    return answers


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


def _sizes(sent: Mapping[str, npt.NDArray[Any]]) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in sent.items())


def _said(error: Exception) -> str:
    """The line that says what happened; TorchScript puts its own trace in front of it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if "TorchScript interpreter" in str(error) else first_line(error)


def _longer(spec: ModelSpec, sample: golden.Sample, run: Run) -> list[golden.Sample]:
    """A sample with `plain.LONG` along every free axis, since a network may take another branch for many steps.

    Empty where no axis is free, and where the network does not take so many.
    """
    inputs = {}
    for tensor in spec.inputs:
        array = sample.inputs[tensor.name]
        for axis, size in enumerate(tensor.shape):
            if axis and size == -1:
                array = np.take(array, np.arange(plain.LONG) % array.shape[axis], axis)
        inputs[tensor.name] = array
    if all(array.shape == sample.inputs[name].shape for name, array in inputs.items()):
        return []
    tensors = {tensor.name: tensor for tensor in (*spec.inputs, *spec.outputs)}
    try:
        answer = run({name: to_file(array, tensors[name]) for name, array in inputs.items()}, list(sample.outputs))
    except Exception:  # noqa: BLE001 - whatever a network raises: it has a limit of its own
        return []
    return [golden.Sample(inputs, {name: from_file(array, tensors[name]) for name, array in answer.items()})]


def _proved(
    form: str, backend_name: str, artifact: Path, spec: ModelSpec, tried: Sequence[golden.Sample], advice: Advice
) -> float:
    """The largest difference of the file from the network over all rows and sizes that were tried."""
    module = backends.module(backend_name)
    frozen = f"the {form} file has frozen a size that the network leaves free"
    try:
        loaded = module.load(artifact, spec, "cpu", Options())
    except RepositoryError as error:
        raise ExportError(f"{frozen}: {str(error).replace(f'{artifact}: ', '')}; {advice.sizes}") from error
    backend = laid_out(loaded, spec)
    worst = 0.0
    try:
        for sample in tried:
            # One row at a time, the network itself knows nothing of an axis for it.
            sizes = _sizes({name: array if spec.batched else array[0] for name, array in sample.inputs.items()})
            try:
                got = backend.run(sample.inputs, list(sample.outputs))
                worst = max(worst, golden.check_agreement(form, got, sample.outputs, spec.tolerance))
            except VerificationFailed as error:
                apart = max(golden.disagreement(got[name], expected) for name, expected in sample.outputs.items())
                if apart < ROUNDING:
                    why = "the file computes an operation with other rounding; allow it with --tolerance"
                else:
                    why = (
                        "an `if` or a loop of Python that depends on the data, or a number of Python (len(x)), has been baked "
                        f"in; {advice.branch}"
                    )
                raise ExportError(f"{error}, with {sizes}: {why}") from error
            except Exception as error:
                raise ExportError(f"{frozen}: with {sizes} it says: {_said(error)}; {advice.sizes}") from error
    finally:
        backend.close()
    return worst
