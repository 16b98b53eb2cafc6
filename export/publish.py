"""A checkpoint becomes a version in a model repository: written in every format asked for, proven, described.

What is proven is the network that the files hold. Weights that are kept smaller make it another one than was trained,
and how far apart the two are is part of the description.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from commands.version import VERSION
from export import canonical, formats, proof, trials
from export.errors import ExportError
from export.float64 import check_tolerance
from export.precision import FP32, rounded, store
from export.versions import Rounding, Version, Written, begun, check_name, check_version, finish, what_can_be
from models import networks, scoring
from models.checkpoint import Checkpoint, weights_digest
from models.networks import Network
from serving import backends
from serving.backends.base import artifact_bytes
from serving.signature.spec import LABELS_FILE, ModelSpec
from serving.verification import golden

TOLERANCE = 1e-5


def publish(
    checkpoint: Checkpoint,
    *,
    chosen: Sequence[str],
    repository: Path,
    name: str,
    version: int | None = None,
    tolerance: float = TOLERANCE,
    precision: str = FP32,
    every: bool = False,
    stateful: bool = False,
) -> Version:
    """Writes `checkpoint` in the formats `chosen` as `repository/name/version`; the next number where none is given.

    With `every` formats that cannot be written are told in the version rather than raised, as long as one can. With `stateful`
    the model's config.pbtxt says that its state is kept.

    With a smaller `precision` (of `export.precision`) the network with the rounded weights is what is proven and scored; how
    far it is from the trained one is kept in the specification.

    Raises `ExportError` for a name or number that cannot be used or a package that is missing, `VerificationFailed`
    when a file does not compute what the trained model does, other `StartupError`s when it cannot be loaded,
    `ModuleNotFoundError` when the framework that trained it is missing, and `OSError`. Whatever it raises, the
    repository holds no part of the version then.
    """
    check_name(name)
    check_tolerance(tolerance)
    target = repository / name
    labels = _labels(checkpoint, target)
    stored = store(checkpoint.weights, precision)
    trained, checkpoint = checkpoint, dataclasses.replace(checkpoint, weights=rounded(checkpoint.weights, stored))
    if version is not None:
        check_version(target, version)
    if not every:
        formats.check(chosen)  # what is missing is told before anything is computed
    with begun(repository) as folder:
        network = networks.load(checkpoint)
        proven = proof.ask(network, trials.make(trained))
        rounding = _rounding(trained, network, proven, precision) if stored else None
        spec = _spec(checkpoint, tolerance, rounding)

        def write(form: str) -> Written:
            writer = formats.writer(form)
            artifact = folder / backends.module(writer.BACKEND).FILE_NAME
            writer.write(checkpoint.config, checkpoint.weights, artifact, stored)
            natural = functools.partial(proof.natural, checkpoint, proven)
            difference = proof.check(form, writer.BACKEND, artifact, spec, proven, natural)
            return Written(form, artifact_bytes(artifact), difference)

        written, failed = what_can_be(chosen, write, folder, every=every)
        spec = dataclasses.replace(spec, source={**spec.source, "export": _made([each.format for each in written])})
        own = [folder / backends.module(formats.writer(each.format).BACKEND).FILE_NAME for each in written]
        samples = [case.sample for case in proven if case.trial.golden]
        path = finish(folder, target, version, spec, samples, labels, own=own, keeps_state=stateful)
    return Version(path, tuple(written), rounding, tuple(failed))


def _made(forms: Sequence[str]) -> dict[str, Any]:
    return {"formats": list(forms), "lstm-serving": VERSION}


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


def _spec(checkpoint: Checkpoint, tolerance: float, rounding: Rounding | None) -> ModelSpec:
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
