"""Brings a finished file into a model repository: an ONNX file, a TorchScript file or a SavedModel that someone else made.

The file is copied as it is. It states some of its signature, a person states the rest, and running the file proves both
(`serving.verification.inspection`). There is no trained model to compare with, so the golden samples are the file's own
answers. They prove that it computes the same wherever it is served, not that it is right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import re
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from export.errors import ExportError
from export.sources import own_signature
from export.sources.own_signature import told_rows
from export.versions import Version, Written, begun, check_name, check_version, finish
from serving import backends
from serving.backends.base import Backend, Options, artifact_bytes
from serving.backends.rows_first import laid_out
from serving.errors import StartupError, VerificationFailed
from serving.signature.spec import ModelSpec
from serving.signature.stated import Stated
from serving.verification import golden, inspection
from serving.verification.hints import Hints
from serving.verification.rows import TOLERANCE

_BY_SUFFIX = {
    ".onnx": "onnx_runtime",
    ".pt": "torchscript",
    ".pth": "torchscript",
    ".ts": "torchscript",
    ".jit": "torchscript",
}
_WEIGHTS = ": weights need their module beside them, so take lstm-export module MODULE:FACTORY --weights FILE"
_INSTEAD = {
    ".safetensors": _WEIGHTS,
    **dict.fromkeys((".keras", ".h5"), ": a model that Keras has saved goes by lstm-export keras FILE"),
}
# What a runtime says of a file that it cannot read, and what to do about it.
_REMEDIES = {
    "is not a registered function/op": "export it again with operators of ONNX alone",
    "ValidateOpsetForDomain": "its opset is newer than this ONNX Runtime knows: export it again with opset_version=17",
}
_GOLDEN_ELEMENTS = 1_000_000  # of all samples together; more are left out, the last ones first


def backend_of(file: Path) -> str:
    """The backend that reads this file or folder. Raises `ExportError` when none does."""
    if not file.exists():
        raise ExportError(f"{file} does not exist")
    if file.is_dir():
        if (file / "saved_model.pb").is_file():
            return "saved_model"
        raise ExportError(f"{file} is a folder without saved_model.pb, so no SavedModel")
    if file.suffix not in _BY_SUFFIX:
        instead = _INSTEAD.get(file.suffix, "")
        raise ExportError(
            f"{file} ends in {file.suffix!r}; known are {', '.join(_BY_SUFFIX)} and SavedModel folders{instead}"
        )
    if _BY_SUFFIX[file.suffix] == "torchscript" and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ExportError(f"{file} is no TorchScript but what torch.save wrote{_WEIGHTS}")
    return _BY_SUFFIX[file.suffix]


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
    nonfinite: str = "",
) -> tuple[Version, ModelSpec]:
    """Writes a copy of `file` as `repository/name/version`, described and proved; the next number where none is given.

    `inputs` and `outputs` are for a file that does not state them (TorchScript); `nonfinite` is what the specification says
    of NaN. Raises `ExportError`, `Unclear` when a person has to decide, other `StartupError`s when the file cannot be loaded
    or contradicts itself, and `OSError`. Whatever it raises, the repository holds no part of the version then.
    """
    check_name(name)
    chosen = backend_of(file)
    module = backends.module(chosen)
    if version is not None:
        check_version(repository / name, version)
    if inputs and outputs:
        stated: tuple[Mapping[str, Stated], Mapping[str, Stated]] | None = (inputs, outputs)
    elif inputs or outputs:
        raise ExportError("name both the inputs (--input) and the outputs (--output), or neither")
    elif chosen == "torchscript":
        raise ExportError(
            f"{file} is TorchScript, which states no names of outputs, no shapes and no datatypes: give them in order, as in "
            "--input x:FP32[-1,-1,8] --output y:FP32[-1,2]"
        )
    else:
        stated = None
    with begun(repository) as folder, _named(file, folder):
        artifact = folder / module.FILE_NAME
        if file.is_dir():
            shutil.copytree(file, artifact)
        else:
            shutil.copyfile(file, artifact)
        unproved = inspection.unproved(*(stated or module.stated(artifact)), digest=_digest(artifact))
        backend = module.load(artifact, unproved, "cpu", Options())
        try:
            with warnings.catch_warnings(), contextlib.ExitStack() as careful:
                # What torch says on every machine whose GPU is none of Intel's.
                warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN", UserWarning)
                careful.enter_context(module.careful())
                found = own_signature.find(unproved, backend.run, hints, module.contents(artifact))
            spec = dataclasses.replace(
                found.spec, tolerance=tolerance, nonfinite=nonfinite, source=_source(file, hints)
            )
            samples = _few(found)
            difference = max(_replayed(file, laid_out(backend, spec), spec, sample) for sample in samples)
        finally:
            backend.close()
        path = finish(folder, repository / name, version, spec, samples)
        return Version(path, (Written(chosen, artifact_bytes(path / module.FILE_NAME), difference),)), spec


@contextlib.contextmanager
def _named(file: Path, folder: Path) -> Iterator[None]:
    """Errors speak of the file that was given, not of the copy that is tried."""
    try:
        yield
    except StartupError as error:
        told = re.sub(rf"{re.escape(str(folder))}/model\.\w+", lambda _: str(file), str(error))
        told += "".join(f"; {remedy}" for said, remedy in _REMEDIES.items() if said in told)
        raise type(error)(told) from error


def described(spec: ModelSpec) -> str:
    """What was found out, for people."""
    lines = [told_rows(spec)]
    pairs = {pair.input: pair.output for pair in spec.state}
    for side, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        for each in tensors:
            words = [f"  {side:<7}{each.name:<16}{each.datatype} {list(spec.shown_shape(each))}"]
            if each.rows_axis:
                words.append(f"rows on axis {each.rows_axis} in the file")
            if each.name in spec.shared:
                words.append("one for all rows")
            if each.name in pairs:
                words.append(f"state, next value in {pairs[each.name]}")
            lines.append(", ".join(words))
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
            f"{error}: it draws something at random or keeps something from call to call, and nothing can be proved of that; "
            "export it in evaluation mode, and let a state be an input and an output"
        ) from error


def _source(file: Path, hints: Hints) -> dict[str, object]:
    said = {name: value for name, value in dataclasses.asdict(hints).items() if value}
    return {
        "file": file.name,
        "said": said,
        "export": {"command": "import", "lstm-serving": importlib.metadata.version("lstm-serving")},
    }


def _digest(artifact: Path) -> str:
    """SHA-256 (hex) of a file, or of names and contents of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]:
        if path.is_file():
            digest.update(str(path.relative_to(artifact)).encode() if artifact.is_dir() else b"")
            digest.update(path.read_bytes())
    return digest.hexdigest()
