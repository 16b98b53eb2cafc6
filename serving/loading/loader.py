"""From a version on disk to a live model: load it into a backend, replay the golden samples, warm it up.

Runs on a loader thread, never on one that answers requests. What is verified is the very backend object that will
serve, on its device, not a second one like it.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from serving import backends
from serving.backends.base import Backend, first_line
from serving.backends.rows_first import laid_out
from serving.batching.model import Model
from serving.batching.worker import Guard
from serving.errors import (
    BackendUnavailable,
    MissingFormat,
    RepositoryError,
    ServingError,
    StartupError,
    VerificationFailed,
)
from serving.loading import warmup
from serving.loading.order import Measure, Order, ServerDefaults, order, spares
from serving.loading.ranking import Candidate, Measured, table
from serving.machine.devices import CPU
from serving.repository import config_in_force, model_config
from serving.repository.folders import Repository, VersionFolder
from serving.signature.spec import ModelSpec
from serving.telemetry.counters import ModelMetrics
from serving.verification import golden, inspection

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadRequest:
    """A version that is to be live: where it lies, what the operator has chosen, and whose counts it goes on with.

    `metrics` gives the counts of the version in a backend, by the backend's name; `failures` in a row make the backend a
    broken one. With `wrap` it serves behind something else, and what it fails at fails: it is a shadow.
    """

    name: str
    folder: VersionFolder
    choices: model_config.OperatorConfig
    labels: tuple[str, ...]
    placement: ServerDefaults
    metrics: Callable[[str], ModelMetrics]
    repository: Repository
    measure: Measure | None = None
    failures: int = 3
    wrap: Callable[[Backend], Backend] | None = None


def load(wanted: LoadRequest) -> Model:
    """Makes a version live in the best way there is. Raises a `StartupError` of the fitting kind; nothing is left running."""
    if not wanted.folder.described and wanted.placement.require_verified:
        raise VerificationFailed(
            f"{wanted.folder.path} has no spec.json and no golden samples, and --require-verified is set: bring the file in "
            "with lstm-export import"
        )
    began = time.monotonic()
    missing = ""
    try:
        chosen = order(wanted.choices, wanted.placement, wanted.folder, wanted.measure)
    except (BackendUnavailable, MissingFormat) as error:
        instead = spares(wanted.choices, wanted.placement, wanted.folder)
        if not instead:
            raise
        log.warning("falling back at load: %s", error, extra={"fields": _fields(wanted)})
        chosen, missing = Order(first=instead), str(error)
    damaged = _damaged(chosen.measured)
    if chosen.measured:
        log.info(
            "measured",
            extra={
                "fields": _fields(wanted)
                | {"optimize_for": wanted.placement.optimize_for, "chosen": str(chosen.first[0])},
                "lines": table(chosen.measured, chosen.first[0]).splitlines(),
            },
        )
        for backend, why in damaged.items():
            log.warning("not in %s: %s", backend, why, extra={"fields": _fields(wanted)})
    candidates = chosen.all if chosen.spare_at_load else tuple(chosen.first)
    first_error: StartupError | None = None
    for candidate in candidates:
        try:
            model = load_in(wanted, candidate, chosen, began)
        except StartupError as error:
            first_error = first_error or error
            if len(candidates) > 1:
                log.warning("not in %s: %s", candidate, error, extra={"fields": _fields(wanted)})
        else:
            model.fell_back = missing or (str(first_error) if first_error and candidate not in chosen.first else "")
            model.damaged = damaged
            if wanted.choices.fallback is not None or wanted.placement.fallback == "none":
                model.order = chosen.settled(candidate)
            return model
    assert first_error
    raise first_error


def load_in(wanted: LoadRequest, candidate: Candidate, chosen: Order, began: float | None = None) -> Model:
    """Makes a version live in one backend, on one device for each instance. Raises a `StartupError` of the fitting kind."""
    began = time.monotonic() if began is None else began
    folder, choices, wishes = wanted.folder, wanted.choices, wanted.placement
    module, artifact = backends.module(candidate.backend), folder.artifact(candidate.backend)
    verified = folder.described
    written = model_config.stated(choices)
    spec = folder.spec() if verified else inspection.unproved(*(written or module.stated(artifact)))
    samples = folder.samples() if verified else []
    labels = bool(wanted.labels)
    # Before anything is loaded, if the version says what it is.
    complete = (
        config_in_force.config_in_force(choices, spec, candidate.backend, candidate.device, labels=labels)
        if verified
        else None
    )
    loaded: list[Backend] = []
    worst = 0.0
    try:
        for device in choices.devices(candidate.device):
            backend = module.load(artifact, spec, device, wishes.options(candidate.threads))
            loaded.append(backend)
            if not verified and len(loaded) == 1:
                with module.careful():
                    spec = _found(artifact, spec, backend, model_config.rows(choices) if written else {})
            loaded[-1] = backend = laid_out(backend, spec)
            if wanted.wrap:
                loaded[-1] = backend = wanted.wrap(backend)
            what = f"{wanted.name} version {folder.number} in {candidate.backend} on {device}"
            allowed = golden.tolerance(spec, tf32=wishes.allow_tf32 and device != CPU)
            worst = max(worst, golden.replay(backend.run, spec, samples, allowed, what))
        complete = complete or config_in_force.config_in_force(
            choices, spec, candidate.backend, candidate.device, labels=labels
        )
        policy = config_in_force.policy_for(choices, spec)
        warmup.check_rows(samples, policy.max_rows)
        extra = warmup.configured(choices.written.model_warmup, spec, policy.max_rows, folder.path.parent)
    except BaseException:
        for backend in loaded:
            backend.close()
        raise
    metrics = wanted.metrics(candidate.backend)
    model = Model(
        name=wanted.name,
        version=str(folder.number),
        spec=spec,
        config=complete,
        labels=wanted.labels,
        candidate=candidate,
        order=chosen,
        verified=verified,
        metrics=metrics,
        wanted=wanted,
    )
    probe = min(samples, key=lambda sample: sum(array.size for array in sample.inputs.values()), default=None)

    def prepare(backend: Backend) -> None:
        try:
            warmup.run(backend, spec, warmup.of_samples(samples, policy.max_rows), extra)
        except Exception as error:
            raise RepositoryError(
                f"{candidate} fails to compute what it is warmed up with, up to {policy.max_rows} rows: "
                f"{type(error).__name__}: {error}"
            ) from error

    def guard(backend: Backend) -> Guard:
        if wanted.wrap:
            return Guard(failures=1, told=False)
        return Guard(
            failures=wanted.failures,
            healthy=lambda: _answers(backend, spec, probe, allowed),
            lost=module.lost,
            hand_over=model.hand_over,
        )

    model.start(loaded, policy, prepare, guard)
    metrics.load_seconds = time.monotonic() - began
    log.info(
        "loaded",
        extra={
            "fields": {
                **_fields(wanted),
                "backend": candidate.backend,
                "asked": choices.backend or wishes.backend,
                "device": ",".join(dict.fromkeys(choices.devices(candidate.device))),
                "threads": candidate.threads,
                "instances": len(loaded),
                "formats": ",".join(folder.formats()),
                "verified": verified,
                "largest_difference": float(f"{worst:.2g}"),
                "seconds": round(metrics.load_seconds, 3),
            }
        },
    )
    return model


def _damaged(measured: Sequence[Measured]) -> dict[str, str]:
    """The backends whose file cannot be served or computes something else, with the reason of each."""
    found: dict[str, str] = {}
    for one in measured:
        if one.failed:
            found.setdefault(one.candidate.backend, one.failed.splitlines()[0])
    return {
        backend: why
        for backend, why in found.items()
        if all(m.failed for m in measured if m.candidate.backend == backend)
    }


def _answers(backend: Backend, spec: ModelSpec, probe: golden.Sample | None, allowed: float) -> bool:
    """Whether a backend still gives a golden sample's answer; a model without samples is believed to."""
    if probe is None:
        return True
    try:
        golden.replay(backend.run, spec, [probe], allowed, "the backend that failed")
    except VerificationFailed as error:
        log.error("broken: %s", error)
        return False
    return True


def _found(artifact: Path, stated: ModelSpec, backend: Backend, rows: Mapping[str, int | None]) -> ModelSpec:
    """What holds of a bare file. Raises `RepositoryError` where a person has to decide."""
    try:
        return inspection.inspect(stated, backend.run, inspection.Hints(rows=rows)).spec
    except inspection.Unclear as error:
        raise RepositoryError(
            f"{artifact} cannot be served without a description: {error}. These are flags of: lstm-export import FILE"
        ) from error
    except ServingError:
        raise
    except Exception as error:  # whatever a runtime raises
        raise RepositoryError(
            f"{artifact} ran on some rows and not on others, so nothing is proved of them: {first_line(error)}"
        ) from error


def _fields(wanted: LoadRequest) -> dict[str, object]:
    return {"model": wanted.name, "version": wanted.folder.number}
