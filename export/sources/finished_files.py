"""Brings a finished file into a model repository: an ONNX file, a TorchScript file or a SavedModel that someone else made.

The file is copied as it is. It states some of its signature, a person states the rest, and running the file proves both
(`serving.verification.inspection`). There is no trained model to compare with, so the golden samples are the file's own
answers. They prove that it computes the same wherever it is served, not that it is right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from commands.version import VERSION
from export import progress
from export.child import Runtime, serve_once
from export.errors import ExportError
from export.float64 import check_tolerance
from export.missing import Missing
from export.samples import NO_SAMPLES, UserSamples
from export.sources import onnx_external, onnx_float64, own_signature, told, torchscript_archive
from export.sources.own_signature import told_rows
from export.versions import Version, Written, begun, check_name, check_version, finish
from serving import backends
from serving.backends import recognised
from serving.backends.base import Backend, artifact_bytes, artifact_digest, files_digest
from serving.backends.rows_first import laid_out
from serving.errors import ChildRaised, StartupError, VerificationFailed
from serving.signature.spec import WRITTEN_IN, ModelSpec
from serving.signature.stated import Stated
from serving.verification import golden, inspection
from serving.verification.company import TOLERANCE
from serving.verification.hints import Hints

_BY_SUFFIX = {
    ".onnx": "onnx_runtime",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".ts": "torchscript",
    ".jit": "torchscript",
}
_DATA = ": that holds weights of an ONNX file: give the .onnx beside it, and both come along"
_CALLED = {"onnx_runtime": "ONNX file", "torchscript": "TorchScript"}
_INSTEAD = {
    **dict.fromkeys((".safetensors", ".ckpt"), f": {recognised.WEIGHTS}"),
    ".data": _DATA,
    **dict.fromkeys((".keras", ".h5"), f": {recognised.KERAS}"),
}
_GOLDEN_ELEMENTS = 1_000_000  # of all samples together; more are left out, the last ones first


def backend_of(file: Path) -> str:
    """The backend that reads this file or folder. Raises `ExportError` when none does."""
    backend = _by_name(file)
    if file.is_file() and (told := recognised.unlike(file, backend, _CALLED[backend])):
        raise ExportError(told)
    return backend


def _by_name(file: Path) -> str:
    if not file.exists():
        raise ExportError(f"{file} does not exist")
    if file.is_dir():
        if (file / "saved_model.pb").is_file():
            return "saved_model"
        raise ExportError(f"{file} is a folder without saved_model.pb, so no SavedModel")
    if file.name == "saved_model.pb":
        raise ExportError(f"{file} is part of a SavedModel: give its folder, lstm-export import {file.parent}")
    if file.suffix not in _BY_SUFFIX:
        instead = _INSTEAD.get(file.suffix, "")
        raise ExportError(
            f"{file} ends in {file.suffix!r}; known are {', '.join(_BY_SUFFIX)} and SavedModel folders{instead}"
        )
    return _BY_SUFFIX[file.suffix]


def check_runtime(file: Path) -> None:
    """Raises `BackendUnavailable`, saying what to install, where nothing here could run the file; `ExportError` by its name."""
    backends.module(_by_name(file)).available("cpu")


def publish_file(
    file: Path,
    *,
    repository: Path,
    name: str,
    version: int | None = None,
    inputs: Mapping[str, Stated] | None = None,
    outputs: Mapping[str, Stated] | None = None,
    hints: Hints,
    tolerance: float = TOLERANCE,
    own: UserSamples = NO_SAMPLES,
    nonfinite: str = "",
    stateful: bool = False,
) -> tuple[Version, ModelSpec]:
    """Writes a copy of `file` as `repository/name/version`, described and proved; the next number where none is given.

    `inputs` and `outputs` are for a file that does not state them (TorchScript); `own` are a person's samples; `nonfinite` is
    what the specification says of NaN. With `stateful` the model's config.pbtxt says that its state is kept.

    Raises `ExportError`, `Unclear` when a person has to decide, other `StartupError`s when the file cannot be loaded or
    contradicts itself, and `OSError`. Whatever it raises, the repository holds no part of the version then.
    """
    check_name(name)
    check_tolerance(tolerance)
    chosen = backend_of(file)
    module = backends.module(chosen)
    if version is not None:
        check_version(repository / name, version)
    if missing := unstated(file, inputs or {}, outputs or {}):
        raise missing
    if inputs and outputs:
        stated: tuple[Mapping[str, Stated], Mapping[str, Stated]] | None = (inputs, outputs)
    elif inputs or outputs:
        raise ExportError("name both the inputs (--input) and the outputs (--output), or neither")
    else:
        stated = None
    with begun(repository) as folder, _named(file, folder):
        artifact = folder / module.FILE_NAME
        progress.stage(f"reading {file}")
        data = _copied(file, artifact)
        runtime = Runtime(chosen)
        stated = stated or _whole(file, *runtime.stated(artifact))
        source = {WRITTEN_IN: "--input and --output"} if inputs else {}
        unproved = inspection.unproved(*stated, digest=_digest(artifact, data), source=source)

        wide = onnx_float64.opened(artifact) if chosen == "onnx_runtime" else None

        def tried(backend: Backend) -> tuple[ModelSpec, list[golden.Sample], float]:
            progress.stage("trying where the rows are, and which sizes are free")
            with runtime.careful():
                found = own_signature.find(
                    unproved,
                    backend.run,
                    hints,
                    runtime.contents(artifact),
                    samples=own,
                    tolerance=tolerance,
                    wide=wide,
                )
            spec = dataclasses.replace(
                found.spec,
                tolerance=tolerance,
                nonfinite=nonfinite,
                source=_source(file, hints, found.why_alone),
            )
            samples = _few(found)
            progress.stage("running its golden samples a second time")
            return spec, samples, max(_replayed(file, laid_out(backend, spec), spec, each) for each in samples)

        spec, samples, difference = runtime.using(artifact, unproved, tried)
        if runtime.remark:
            spec = dataclasses.replace(spec, source={**spec.source, "remark": runtime.remark})
        progress.stage("serving it once")
        path = finish(
            folder,
            repository / name,
            version,
            spec,
            samples,
            check=lambda folder: serve_once(folder, name, chosen, runtime.level),
            keeps_state=stateful,
        )
        size = sum(artifact_bytes(path / part) for part in (Path(module.FILE_NAME), *data))
        return Version(path, (Written(chosen, size, difference),)), spec


def unstated(file: Path, inputs: Mapping[str, Stated], outputs: Mapping[str, Stated]) -> Missing | None:
    """What must be said of a file that states nothing of itself. Raises `ExportError` for one that no backend reads."""
    if backend_of(file) != "torchscript" or (inputs and outputs):
        return None
    for_inputs, for_outputs = torchscript_archive.forward(file).flags()
    return Missing(
        f"{file} is TorchScript, which states no names of outputs, no shapes and no datatypes: give them in order, as in "
        "--input x:FP32[-1,-1,8] --output y:FP32[-1,2], -1 where free",
        [*([] if inputs else for_inputs), *([] if outputs else for_outputs)],
    )


def values_unstated(file: Path, inputs: Mapping[str, Stated], hints: Hints) -> Missing | None:
    """What must be said of values, before anything is tried; `inputs` as a person has said them, or the file says them itself.

    Raises what reading the file raises.
    """
    if not inputs and backend_of(file) == "torchscript":
        return None
    stated = inputs or _whole(file, *Runtime(backend_of(file)).stated(file))[0]
    return own_signature.values_missing({name: shape for name, (_, shape) in stated.items()}, hints)


def _whole(
    file: Path, inputs: Mapping[str, Stated], outputs: Mapping[str, Stated]
) -> tuple[Mapping[str, Stated], Mapping[str, Stated]]:
    """What a file states, as long as that is a datatype and a rank for all. Raises `Missing`."""
    flags = []
    for flag, side in (("--input", inputs), ("--output", outputs)):
        for name, (datatype, shape) in side.items():
            sizes = "SIZES" if shape is None else ",".join(str(size if size > 0 else -1) for size in shape)
            flags += [flag, f"{name}:{datatype or 'DTYPE'}[{sizes}]"]
    if lacks := [n for side in (inputs, outputs) for n, (datatype, shape) in side.items() if None in (datatype, shape)]:
        raise Missing(
            f"{file} does not state datatype and rank of {', '.join(lacks)}: say them, -1 where a size is free", flags
        )
    return inputs, outputs


def _copied(file: Path, artifact: Path) -> tuple[Path, ...]:
    """Copies the file, and the files beside it that hold its weights, whose names are returned."""
    if file.is_dir():
        shutil.copytree(file, artifact)
        return ()
    shutil.copyfile(file, artifact)
    data = onnx_external.beside(file) if file.suffix == ".onnx" else ()
    for part in data:
        target = artifact.parent / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.parent / part, target)
    return data


@contextlib.contextmanager
def _named(file: Path, folder: Path) -> Iterator[None]:
    """Errors speak of the file that was given, not of the copy that is tried."""
    try:
        yield
    except Missing:
        raise
    except (StartupError, ExportError) as error:
        said = re.sub(rf"{re.escape(str(folder))}/model\.\w+", lambda _: str(file), str(error))
        kind = ExportError if isinstance(error, ChildRaised) else type(error)
        raise kind(said) from error


def described(spec: ModelSpec) -> str:
    """What was found out, for people."""
    lines = [told_rows(spec), *filter(None, [spec.source.get("remark")]), told.signature(spec)]
    return "\n".join(lines)


def _few(found: inspection.Findings) -> list[golden.Sample]:
    """As many samples as may travel with the version, at least one."""
    kept: list[golden.Sample] = []
    elements = 0
    for sample in found.samples:
        elements += sum(array.size for array in (*sample.inputs.values(), *sample.outputs.values()))
        if kept and elements > _GOLDEN_ELEMENTS:
            break
        kept.append(sample)
    return kept


def _replayed(file: Path, backend: Backend, spec: ModelSpec, sample: golden.Sample) -> float:
    got = backend.run(sample.inputs, list(sample.outputs))
    try:
        return golden.check_agreement(f"{file}, run a second time", got, sample.outputs, spec.tolerance)
    except VerificationFailed as error:
        raise ExportError(
            f"{error}: the same inputs, another answer, as of what draws at random or keeps something from call to call, and "
            "nothing can be proved of that; export it in evaluation mode, and let a state be an input and an output"
        ) from error


def _source(file: Path, hints: Hints, why_alone: str) -> dict[str, object]:
    said = {name: value for name, value in dataclasses.asdict(hints).items() if value}
    return {
        "file": file.name,
        "said": said,
        **own_signature.rows_alone(why_alone),
        "export": {"command": "import", "lstm-serving": VERSION},
    }


def _digest(artifact: Path, data: Sequence[Path]) -> str:
    """SHA-256 (hex) of the artefact, and of names and contents of the files beside it that hold its weights."""
    if not data:
        return artifact_digest(artifact)
    return files_digest({artifact: ".", **{artifact.parent / part: str(part) for part in data}})
