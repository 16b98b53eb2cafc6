"""A network with a signature of its own: finds out about it, writes its files, and holds them to the network's answers.

`torch_modules` and `keras_models` share this. The axis of the rows and the sizes that may change are found on the
network itself, before any file is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from commands.version import VERSION
from export import child, formats, progress
from export.errors import ExportError
from export.missing import Missing
from export.samples import NO_SAMPLES, UserSamples, Wide, checked, rows_first
from export.sources import differences, plain
from export.sources.differences import Advice, Network
from export.versions import NotWritten, Target, Version, Written, begun, finish, what_can_be
from serving import backends
from serving.backends.base import Contents, Options, artifact_bytes, first_line
from serving.backends.rows_first import laid_out
from serving.errors import RepositoryError
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.signature.tensors import BF16, DTYPES, Tensors
from serving.verification import golden, inspection
from serving.verification.company import TOLERANCE
from serving.verification.hints import Hints, Shape, value_for
from serving.verification.trials import NOTHING_SHOWN, Run

_DATATYPES = {dtype: name for name, dtype in DTYPES.items() if dtype != BF16}

_PLAIN_ALONE = "of this framework it can be had for plain stacks of LSTM and linear layers only"

Write = Callable[[ModelSpec, Path], str]  # returns how the file came about, where that explains a wrong answer, else ""


def publish(
    stated: ModelSpec,
    run: Run,
    writers: Mapping[str, tuple[str, Write]],
    hints: Hints,
    target: Target,
    advice: Advice,
    wide: Wide | None = None,
    quick: Run | None = None,
    *,
    every: bool = False,
) -> tuple[Version, ModelSpec]:
    """Writes a version with every format of `writers` (its backend and what writes it), proved against `run`.

    With `every` formats that cannot be written are told in the version rather than raised, as long as one can.

    `stated` is what `inspection.unproved` makes of the network; `wide` runs it in float64, which explains a difference.
    `quick` runs what is written rather than the network, to find out about it; the network's own answers go into the version.

    Raises `ExportError`, `Unclear` when a person has to
    decide, and `OSError`; the repository holds no part of the version then.
    """
    progress.stage("trying where the rows are, and which sizes are free")
    found = find(stated, quick or run, hints, samples=target.samples, tolerance=target.tolerance, wide=wide)
    spec = dataclasses.replace(found.spec, tolerance=target.tolerance)
    with begun(target.repository) as folder:
        network = Network(spec, run, wide)
        samples = (
            [golden.Sample(each.inputs, network.run(each.inputs)) for each in found.samples] if quick else found.samples
        )
        tried = [*samples, *_longer(network, samples[0])]

        def write(form: str) -> Written:
            backend, how = writers[form]
            artifact = folder / backends.module(backend).FILE_NAME
            progress.stage(f"writing {form}")
            note = how(spec, artifact)
            progress.stage(f"holding {form} to the network")
            try:
                difference = _proved(form, backend, artifact, network, tried, advice)
            except ExportError as error:
                raise ExportError(f"{error}{note and f' ({note})'}") from error
            return Written(form, artifact_bytes(artifact), difference)

        written, failed = what_can_be(writers, write, folder, every=every)
        if every:
            failed += [NotWritten(form, _PLAIN_ALONE) for form in formats.names() if form not in writers]

        def served_once(folder: Path) -> None:
            for each in written:
                progress.stage(f"serving {each.format} once")
                child.serve_once(folder, target.name, writers[each.format][0])

        made = {
            "formats": [each.format for each in written],
            "lstm-serving": VERSION,
        }
        source = {**target.described, **rows_alone(found.why_alone), "export": made}
        spec = dataclasses.replace(spec, source=source)
        path = finish(
            folder,
            target.repository / target.name,
            target.version,
            spec,
            samples,
            check=served_once,
            keeps_state=target.stateful,
        )
    return Version(path, tuple(written), not_written=tuple(failed)), spec


def find(
    stated: ModelSpec,
    run: Run,
    hints: Hints,
    contents: Contents = NOTHING_SHOWN,
    *,
    samples: UserSamples = NO_SAMPLES,
    tolerance: float = TOLERANCE,
    wide: Wide | None = None,
) -> inspection.Findings:
    """`inspection.inspect` for a network or a file that may raise anything, with a person's own samples before those made.

    Raises what that raises, and `ExportError`, among others where the answers to the samples are not within the tolerance
    of those given.
    """
    if missing := values_missing({tensor.name: tensor.file_shape for tensor in stated.inputs}, hints):
        raise missing
    given = samples.fitting(stated.inputs, stated.outputs, hints)
    answers = checked(given, samples.path, run, [tensor.name for tensor in stated.outputs], tolerance, wide)
    hints = dataclasses.replace(hints, samples=[sample.inputs for sample in given])

    def told(sent: Tensors, wanted: Sequence[str]) -> Tensors:
        try:
            return run(sent, wanted)
        except ExportError:
            raise
        except Exception as error:  # whatever a network raises
            raise RuntimeError(differences.said(error)) from error

    try:
        found = inspection.inspect(dataclasses.replace(stated, tolerance=tolerance), told, hints, contents)
        if name := inspection.nan_alone([sample.outputs for sample in found.samples]):
            raise inspection.nan_whatever_is_asked(name)
        return dataclasses.replace(found, samples=[*rows_first(given, answers, found.spec), *found.samples])
    except RuntimeError as error:
        raise ExportError(
            f"it has answered some of what was tried, and fails on other inputs: {error}; state what an input may hold with "
            "--value NAME=NUMBER, or the sizes that it takes with --shape NAME:SIZES"
        ) from error


def values_missing(shapes: Mapping[str, Shape | None], hints: Hints) -> Missing | None:
    """What must be said of inputs that have no axis, since nobody knows what to try them with."""
    lacking = [
        name for name, shape in shapes.items() if hints.shapes.get(name, shape) == () and name not in hints.values
    ]
    if not lacking:
        return None
    return Missing(
        f"of {', '.join(lacking)} one value holds for all rows: say what to try the network with",
        [part for name in lacking for part in ("--value", f"{name}=VALUE")],
    )


def rows_alone(why: str) -> dict[str, str]:
    """What `source` of a specification says of rows that are never batched, and why; empty where that is not known."""
    return {"rows_alone": why} if why else {}


def told_rows(spec: ModelSpec) -> str:
    """What was found out about its rows, for people: what was seen, not what may be the reason."""
    if spec.batched:
        told = (
            f"; {spec.masks.input} proved to say how many steps of {spec.masks.of} are true, up to {spec.masks.up_to}"
            if spec.masks and spec.joins_lengths
            else ""
        )
        return f"rows proved apart, with several rows and sizes{told}"
    if why := spec.source.get("rows_alone"):
        return f"one row at a time, never batched: {why}"
    free = [f"{t.name} axis {axis}" for t in spec.inputs for axis, size in enumerate(t.file_shape) if size == -1]
    if not free:
        return "one row at a time, never batched: every size of its inputs is fixed, so that there is no axis for more rows"
    return (
        f"one row at a time, never batched: along no axis that is free ({', '.join(free)}) was there an answer for each row that "
        "its own row moves and no other"
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
            "the network answers the same inputs differently the second time, as one does that draws at random (dropout or noise "
            "while it answers) or keeps something from call to call; take the chance out, and let a state be an input and "
            "an output"
        )
    return answers


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


def _longer(network: Network, sample: golden.Sample) -> list[golden.Sample]:
    """A sample with `plain.LONG` along every free axis, since a network may take another branch for many steps.

    Empty where no axis is free, and where the network does not take so many.
    """
    inputs = {}
    for tensor in network.spec.inputs:
        array = sample.inputs[tensor.name]
        for axis, size in enumerate(tensor.shape):
            if axis and size == -1:
                array = np.take(array, np.arange(plain.LONG) % array.shape[axis], axis)
        inputs[tensor.name] = array
    if all(array.shape == sample.inputs[name].shape for name, array in inputs.items()):
        return []
    try:
        return [golden.Sample(inputs, network.run(inputs))]
    except Exception:  # noqa: BLE001 - whatever a network raises: it has a limit of its own
        return []


def _proved(
    form: str, backend_name: str, artifact: Path, network: Network, tried: Sequence[golden.Sample], advice: Advice
) -> float:
    """The largest difference of the file from the network over all rows and sizes that were tried. Raises `ExportError`."""
    try:
        loaded = backends.module(backend_name).load(artifact, network.spec, "cpu", Options())
    except RepositoryError as error:
        said = str(error).replace(f"{artifact}: ", "").replace(f"{artifact} ", "")
        if " has shape " in said:
            said = f"it has frozen a size that the network leaves free: {said}; {advice.sizes}"
        raise ExportError(f"the {form} file cannot be used: {said}") from error
    try:
        worst, sentence = differences.held(form, laid_out(loaded, network.spec), network, tried, advice)
    finally:
        loaded.close()
    if sentence:
        raise ExportError(sentence)
    return worst
