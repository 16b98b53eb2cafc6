"""One call writes one new, whole, proven version into a model repository, or nothing at all.

`rename` refuses a folder that exists and is not empty, on every file system. That alone keeps two exports of the same
moment apart; no lock file is needed, and none can be left behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib.metadata
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from export import canonical, formats, proof, trials
from export.errors import ExportError
from export.precision import FP32, rounded, store
from models import networks, scoring
from models.checkpoint import Checkpoint, weights_digest
from models.networks import Network
from serving import backends
from serving.backends.base import artifact_bytes
from serving.signature import spec as specification
from serving.signature.spec import LABELS_FILE, ModelSpec
from serving.verification import golden

TOLERANCE = 1e-5

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@dataclasses.dataclass(frozen=True)
class Written:
    """One format of a version: the size of its file or folder, and its largest disagreement with the trained model."""

    format: str
    size_bytes: int
    largest_difference: float


@dataclasses.dataclass(frozen=True)
class Rounding:
    """What keeping the weights smaller has changed: the largest `|a - b| / max(1, |b|)` of any answer, and the test scores.

    `scores` has those of the rounded network by the names that the trained one has; it is empty where the run does not hold
    what they are measured on.
    """

    precision: str
    largest_difference: float
    scores: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Version:
    """A version that is in the repository now."""

    path: Path
    written: tuple[Written, ...]
    rounding: Rounding | None = None


def publish(
    checkpoint: Checkpoint,
    *,
    chosen: Sequence[str],
    repository: Path,
    name: str,
    version: int | None = None,
    tolerance: float = TOLERANCE,
    precision: str = FP32,
) -> Version:
    """Writes `checkpoint` in the formats `chosen` as `repository/name/version`; the next number where none is given.

    With a smaller `precision` (of `export.precision`) the network with the rounded weights is what is proven and scored; how
    far it is from the trained one is kept in the specification.

    Raises `ExportError` for a name or number that cannot be used or a package that is missing, `VerificationFailed`
    when a file does not compute what the trained model does, other `StartupError`s when it cannot be loaded,
    `ModuleNotFoundError` when the framework that trained it is missing, and `OSError`. Whatever it raises, the
    repository holds no part of the version then.
    """
    check_name(name)
    if not 0 < tolerance < 1:
        raise ExportError(f"tolerance is {tolerance:g}; it must lie between 0 and 1")
    target = repository / name
    labels = _labels(checkpoint, target)
    stored = store(checkpoint.weights, precision)
    trained, checkpoint = checkpoint, dataclasses.replace(checkpoint, weights=rounded(checkpoint.weights, stored))
    if version is not None:
        check_version(target, version)
    writers = {form: formats.writer(form) for form in chosen}
    repository.mkdir(parents=True, exist_ok=True)
    with work_folder(repository) as work:
        folder = work / "version"
        folder.mkdir()
        network = networks.load(checkpoint)
        proven = proof.ask(network, trials.make(trained))
        rounding = _rounding(trained, network, proven, precision) if stored else None
        spec = _spec(checkpoint, chosen, tolerance, rounding)
        written = []
        for form, writer in writers.items():
            artifact = folder / backends.module(writer.BACKEND).FILE_NAME
            writer.write(checkpoint.config, checkpoint.weights, artifact, stored)
            difference = proof.check(form, writer.BACKEND, artifact, spec, proven)
            written.append(Written(form, artifact_bytes(artifact), difference))
        golden.write_samples(folder / golden.FILE_NAME, [case.sample for case in proven if case.trial.golden])
        (folder / specification.FILE_NAME).write_text(spec.to_json(), encoding="utf-8")
        path = place(folder, target, version, labels)
    return Version(path, tuple(written), rounding)


def check_name(name: str) -> None:
    """Raises `ExportError` unless `name` can be a model's name: one component of a path, visible, portable."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise ExportError(
            f"the name {name!r} cannot be used: letters, digits, '.', '_' and '-', at most 128, a letter or digit first"
        )


def next_version(target: Path) -> int:
    """One more than the highest number that anything in a model's folder has; 1 where there is no folder."""
    if not target.is_dir():
        return 1
    numbers = (int(entry.name) for entry in target.iterdir() if entry.name.isascii() and entry.name.isdigit())
    return max(numbers, default=0) + 1


def check_version(target: Path, version: int) -> None:
    """Raises `ExportError` unless `version` is a number that a version may have and none has yet."""
    if version < 1:
        raise ExportError(f"version is {version}; versions are counted from 1")
    if os.path.lexists(target / str(version)):
        raise ExportError(
            f"{target / str(version)} exists, and versions are never overwritten: leave the version out for the next one"
        )


def _rounding(trained: Checkpoint, network: Network, proven: Sequence[proof.Proven], precision: str) -> Rounding:
    """How the rounded network differs from the trained one, on the trials and on the test part."""
    before = proof.ask(networks.load(trained), [case.trial for case in proven])
    difference = max(
        golden.disagreement(case.expected[name], other.expected[name])
        for case, other in zip(proven, before, strict=True)
        for name in proof.NAMES
    )
    scores = {}
    if trained.test is not None:
        (name,) = [name for name in trained.training["scores"] if name.startswith("test_")]
        was = trained.training["scores"][name]
        outputs = list(was) if isinstance(was, Mapping) else []
        scores[name] = scoring.score(scoring.answers(network, trained.test), trained.test, outputs)
    return Rounding(precision, difference, scores)


def _spec(checkpoint: Checkpoint, chosen: Sequence[str], tolerance: float, rounding: Rounding | None) -> ModelSpec:
    config = checkpoint.config
    scores = dict(checkpoint.training.get("scores", {}))
    if rounding:
        scores = {name: value for name, value in scores.items() if not name.startswith("test_")} | dict(rounding.scores)
    made = {key: value for key, value in checkpoint.training.items() if key != "scores"}
    return ModelSpec(
        inputs=canonical.inputs(config),
        outputs=canonical.outputs(config),
        lengths=canonical.LENGTHS,
        state=canonical.STATE,
        streamable=config.streamable,
        tolerance=tolerance,
        weights_sha256=weights_digest(checkpoint.weights),
        vocabulary=config.vocabulary,
        labels_of="y" if checkpoint.labels else "",
        source={
            "framework": checkpoint.framework,
            "network": dataclasses.asdict(config),
            **made,
            "precision": dataclasses.asdict(rounding) if rounding else {"precision": FP32},
            "export": {"formats": list(chosen), "lstm-serving": importlib.metadata.version("lstm-serving")},
        },
        scores=scores,
    )


def _labels(checkpoint: Checkpoint, target: Path) -> str:
    """The text of labels.txt, one class a line. All versions of a model share it, so another one is refused."""
    if any(not label or label != label.strip() or len(label.splitlines()) > 1 for label in checkpoint.labels):
        raise ExportError(f"class names must be single lines without blanks around them; got {list(checkpoint.labels)}")
    text = "".join(f"{label}\n" for label in checkpoint.labels)
    there = target / LABELS_FILE
    if text and there.is_file() and there.read_text(encoding="utf-8") != text:
        raise ExportError(
            f"{there} names other classes, and all versions of a model share it: export under another name"
        )
    return text


def place(folder: Path, target: Path, version: int | None, labels: str) -> Path:
    """Makes a finished version durable and moves it to its number. Raises `ExportError` when that has been taken meanwhile.

    The first version of a model appears together with the model's folder and its labels.
    """
    _sync_tree(folder)
    number = version or next_version(target)
    model = folder.parent / "model"
    model.mkdir()
    if labels:
        (model / LABELS_FILE).write_text(labels, encoding="utf-8")
        _sync(model / LABELS_FILE)
    folder = folder.rename(model / str(number))
    _sync(model)
    if not _moved(model, target):
        if labels and not (target / LABELS_FILE).exists():
            (model / LABELS_FILE).rename(target / LABELS_FILE)
        while not _moved(folder, target / str(number)):
            if version is not None:
                raise ExportError(f"{target / str(number)} was written by another export meanwhile")
            number += 1
        _sync(target)
    _sync(target.parent)
    return target / str(number)


def _moved(folder: Path, target: Path) -> bool:
    """Renames `folder` to `target`; false when something is there already."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in _TAKEN or not target.parent.is_dir():
            raise
        return False
    return True


@contextlib.contextmanager
def work_folder(repository: Path) -> Iterator[Path]:
    """A hidden folder on the repository's file system, gone afterwards whatever happens inside."""
    work = Path(tempfile.mkdtemp(prefix=".export-", dir=repository))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    """Files first, then the folders that name them, inner ones first."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(parent) / name)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
