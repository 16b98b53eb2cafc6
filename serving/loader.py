"""From a version on disk to a live model: choose the backend and the device, load, replay the golden samples.

Runs on a loader thread, never on one that answers requests. One fact that surprises: what is verified is the very
backend object that will serve, on its device, not a second one like it.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from serving import backends, config, findings, golden
from serving.backends.base import Backend, Options
from serving.batcher import Batcher
from serving.devices import CPU
from serving.errors import BackendUnavailable, RepositoryError, VerificationFailed
from serving.layout import laid_out
from serving.metrics import ModelMetrics
from serving.model import Model
from serving.repository import Repository, VersionFolder
from serving.spec import ModelSpec

log = logging.getLogger(__name__)

AUTO = "auto"
# Products of TF32 are off by up to 2^-11 of their factors; a few hundred steps of an LSTM, whose gates are bounded, keep
# well below this.
TF32_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """The server-wide wishes: a backend's name or "auto"; "cpu", "cuda:N" or "auto"; and options for the backend.

    What a model's `config.pbtxt` says goes before these. With `require_verified` nothing is served without golden samples.
    """

    backend: str = AUTO
    device: str = "cpu"
    options: Options = dataclasses.field(default_factory=Options)
    require_verified: bool = False


def choose(backend: str, device: str, formats: tuple[str, ...]) -> tuple[str, str]:
    """The backend and the device that will serve a version which holds the artefacts of `formats` (in order of preference).

    Raises `RepositoryError` when the version lacks what was asked for, `BackendUnavailable` with every reason when
    nothing that is there can run here.
    """
    if not formats:
        known = ", ".join(backends.module(name).FILE_NAME for name in backends.PREFERENCE)
        raise RepositoryError(f"the version holds no model file; one of {known} is needed: export it again")
    if backend != AUTO and backend not in formats:
        raise RepositoryError(
            f"backend {backend} was asked for, but the version has no {backends.module(backend).FILE_NAME}; "
            f"it can be served by {', '.join(formats)}"
        )
    return first_available(
        (name, candidate)
        for name in (formats if backend == AUTO else (backend,))
        for candidate in (("cuda:0", "cpu") if device == AUTO else (device,))
    )


def first_available(candidates: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The first pair of a backend and a device that can run here. Raises `BackendUnavailable` with every reason if none can."""
    reasons: dict[str, list[str]] = {}
    for name, device in candidates:
        try:
            backends.module(name).available(device)
        except BackendUnavailable as error:
            reasons.setdefault(str(error), []).append(f"{name} on {device}")
        else:
            return name, device
    told = "; ".join(f"{', '.join(who)}: {why}" for why, who in reasons.items())
    raise BackendUnavailable(f"no backend that was asked for can run here. {told}")


def load(
    repository: Repository, name: str, folder: VersionFolder, choices: config.Choices, placement: Placement
) -> Model:
    """Makes a version live. Raises a `StartupError` of the fitting kind; nothing is left running then."""
    began = time.monotonic()
    verified = folder.described
    if not verified and placement.require_verified:
        raise VerificationFailed(
            f"{folder.path} has no spec.json and no golden samples, and --require-verified is set: bring the file in with "
            "lstm-export import"
        )
    backend_name, device = choose(
        choices.backend or placement.backend, choices.device or placement.device, folder.formats()
    )
    module, artifact = backends.module(backend_name), folder.artifact(backend_name)
    written = config.stated(choices)
    spec = folder.spec() if verified else findings.unproved(*(written or module.stated(artifact)))
    samples = folder.samples() if verified else []
    labels = repository.labels(name)
    # Before anything is loaded, if the version says what it is.
    complete = config.complete(choices, spec, backend_name, device, labels=bool(labels)) if verified else None
    backend = module.load(artifact, spec, device, placement.options)
    try:
        if not verified:
            with module.careful():
                spec = _found(artifact, spec, backend, config.rows(choices) if written else {})
        backend = laid_out(backend, spec)
        complete = complete or config.complete(choices, spec, backend_name, device, labels=bool(labels))
        what = f"{name} version {folder.number} in {backend_name} on {device}"
        worst = verify(backend, spec, samples, tolerance(spec, device, placement.options), what)
    except BaseException:
        backend.close()
        raise
    metrics = ModelMetrics()
    metrics.load_seconds = time.monotonic() - began
    log.info(
        "loaded",
        extra={
            "fields": {
                "model": name,
                "version": folder.number,
                "backend": backend_name,
                "asked": choices.backend or placement.backend,
                "device": device,
                "formats": ",".join(folder.formats()),
                "verified": verified,
                "largest_difference": float(f"{worst:.2g}"),
                "seconds": round(metrics.load_seconds, 3),
            }
        },
    )
    return Model(
        name=name,
        version=str(folder.number),
        spec=spec,
        config=complete,
        labels=labels,
        backend=backend_name,
        device=device,
        verified=verified,
        batcher=Batcher(f"model '{name}' version {folder.number}", backend, config.policy_for(choices, spec), metrics),
        metrics=metrics,
    )


def _found(artifact: Path, stated: ModelSpec, backend: Backend, rows: Mapping[str, int | None]) -> ModelSpec:
    """What holds of a bare file. Raises `RepositoryError` where a person has to decide."""
    try:
        return findings.find(stated, backend.run, findings.Hints(rows=rows)).spec
    except findings.Unclear as error:
        raise RepositoryError(
            f"{artifact} cannot be served without a description: {error}. These are flags of: lstm-export import FILE"
        ) from error


def tolerance(spec: ModelSpec, device: str, options: Options) -> float:
    """How far a backend may be from the trained model: the spec's tolerance, or that of TF32 where it is in use."""
    return max(spec.tolerance, TF32_TOLERANCE) if device != CPU and options.allow_tf32 else spec.tolerance


def verify(backend: Backend, spec: ModelSpec, samples: list[golden.Sample], allowed: float, what: str) -> float:
    """Replays the golden samples; returns the largest disagreement.

    Raises `VerificationFailed` if it is above `allowed` and where a sample does not hold every output of the model.
    """
    names = [tensor.name for tensor in spec.outputs]
    worst = 0.0
    for sample in samples:
        if unsaid := [name for name in names if name not in sample.outputs]:
            raise VerificationFailed(f"{what}: a golden sample says nothing of {', '.join(unsaid)}; export it again")
        if not all(array.size for array in sample.inputs.values()):
            raise VerificationFailed(f"{what}: a golden sample has an input without elements; export it again")
        try:
            got = backend.run(sample.inputs, names)
        except Exception as error:
            raise VerificationFailed(
                f"{what}: cannot run its golden samples: {type(error).__name__}: {error}"
            ) from error
        worst = max(worst, golden.check_agreement(what, got, sample.outputs, allowed))
    return worst
