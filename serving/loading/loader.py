"""From a version on disk to a live model: choose a backend, open and prove it, warm it up.

Runs on a loader thread, never on one that answers requests.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence

from protos import model_config_pb2 as pb
from serving import backends
from serving.backends.base import Backend, Candidate, Measured
from serving.batching.computation import Stateless
from serving.batching.guard import Guard
from serving.batching.model import Instance, Model, Watched
from serving.batching.policy import BatchPolicy
from serving.errors import RepositoryError, StartupError, VerificationFailed
from serving.loading import proof, warmup
from serving.loading.order import Order, order
from serving.loading.proof import Facts, Proved
from serving.loading.ranking import table
from serving.loading.request import Loaded, LoadRequest, Tried
from serving.repository import labels, reshapes
from serving.repository.config_in_force import config_in_force, policy_for
from serving.repository.model_config import TOLD
from serving.signature.spec import REFUSE, ModelSpec
from serving.signature.tensors import Tensors
from serving.verification import company, golden

log = logging.getLogger(__name__)


def load(request: LoadRequest) -> Loaded:
    """Makes a version live in the best way there is. Raises a `StartupError` of the fitting kind; nothing is left running."""
    if not request.folder.described and request.defaults.require_verified:
        raise VerificationFailed(
            f"{request.folder.path} has no spec.json and no golden samples, and --require-verified is set: bring the file in "
            "with lstm-export import"
        )
    began = request.clock.now_ns()
    chosen = order(request.config, request.defaults, request.folder, request.measure)
    damaged = _damaged(chosen.measured)
    _log_choice(request, chosen, damaged)
    first_error: StartupError | None = None
    for candidate in chosen.at_load:
        try:
            loaded = load_in(request, candidate, chosen, began)
        except StartupError as error:
            first_error = first_error or error
            if len(chosen.at_load) > 1:
                log.warning("not in %s: %s", candidate, error, extra={"fields": request.fields()})
        else:
            fell_back = str(first_error) if first_error and candidate not in chosen.first else ""
            return dataclasses.replace(
                loaded, order=chosen.serving(candidate), fell_back=chosen.missing or fell_back, damaged=damaged
            )
    assert first_error
    raise first_error


def load_in(request: LoadRequest, candidate: Candidate, chosen: Order, began_ns: int | None = None) -> Loaded:
    """Makes a version live in one backend, on one device for each instance. Raises a `StartupError` of the fitting kind."""
    began_ns = request.clock.now_ns() if began_ns is None else began_ns
    tried = request.trial(request, candidate) if request.trial else Tried()
    facts, config = proof.read(request, candidate), None
    if facts.described:  # what contradicts the operator's configuration need not be loaded
        facts = _shown(request, facts)
        config = _configured(request, candidate, facts.spec)
    with proof.opened(request, candidate, facts, tried.level) as (found, proved):
        facts = _shown(request, found)
        config = config or _configured(request, candidate, facts.spec)
        policy = policy_for(request.config, facts.spec, alone=request.wrap is not None)
        model = _assembled(request, candidate, facts, config, policy, max(one.allowed for one in proved))
        warmup.check_rows(facts.samples, policy.max_rows)
        written = request.config.written.model_warmup
        extra = warmup.configured(written, facts.spec, policy.max_rows, request.folder.path.parent)
        instances = [
            Instance(
                Stateless(one.backend, facts.spec, request.clock),
                functools.partial(_warm_up, candidate, one.backend, facts, policy.max_rows, extra),
                guard_of(request, candidate, facts, one, model),
            )
            for one in proved
        ]
        _tell(model.config, request, candidate, chosen, max(one.allowed for one in proved), verified=facts.described)
    model.start(instances)
    model.metrics.load_seconds = (request.clock.now_ns() - began_ns) / 1e9
    _log_loaded(request, candidate, model, max(one.difference for one in proved))
    return Loaded(model=model, request=request, order=chosen, tried=tried.remark)


def _assembled(
    request: LoadRequest,
    candidate: Candidate,
    facts: Facts,
    config: pb.ModelConfig,
    policy: BatchPolicy,
    allowed: float,
) -> Model:
    return Model(
        name=request.name,
        version=str(request.folder.number),
        spec=facts.spec,
        config=config,
        labels=labels.of_outputs(request.labels, facts.spec),
        candidate=candidate,
        verified=facts.described,
        metrics=request.metrics(candidate.backend),
        policy=policy,
        finite_only=_finite_only(request.config.nonfinite, facts.spec),
        watched=_watched(request, candidate, facts.spec, policy, allowed),
        clock=request.clock,
    )


def _finite_only(chosen: str, spec: ModelSpec) -> bool:
    """Whether NaN and Inf are refused: as the operator has chosen, else as the specification says."""
    return chosen == REFUSE if chosen else spec.refuses_nonfinite


def _shown(request: LoadRequest, facts: Facts) -> Facts:
    """The facts with the shapes that the operator shows clients. Raises `ModelConfigError`."""
    return dataclasses.replace(facts, spec=reshapes.shown(facts.spec, request.config.written))


def _watched(
    request: LoadRequest, candidate: Candidate, spec: ModelSpec, policy: BatchPolicy, allowed: float
) -> Watched | None:
    """How a version is watched whose rows were found apart by trying; None of those whose rows are apart by construction."""
    share, known = request.defaults.row_watch, request.found_touching
    if not spec.batched or policy.max_rows < 2 or request.wrap or spec.by_our_writers:
        return None
    found = known.find(request.folder, candidate) if known else ""
    if not share and not found:
        return None
    differs = functools.partial(company.answered_otherwise, tolerance=allowed)
    if known is None:
        return Watched(share, differs, found)
    return Watched(share, differs, found, functools.partial(known.keep, request.folder, candidate))


def _configured(request: LoadRequest, candidate: Candidate, spec: ModelSpec) -> pb.ModelConfig:
    labelled = labels.of_outputs(request.labels, spec)
    return config_in_force(request.config, spec, candidate.backend, candidate.device, labelled=labelled)


def _tell(
    config: pb.ModelConfig,
    request: LoadRequest,
    candidate: Candidate,
    chosen: Order,
    tolerance: float,
    *,
    verified: bool,
) -> None:
    """Puts into the configuration in force what no field of it has room for, as parameters of our own."""
    devices = request.config.devices(candidate.device)
    version = request.folder.number
    measured = next((one.p50_seconds for one in chosen.measured if one.candidate == candidate and not one.failed), {})
    told = {
        "backend": candidate.backend,
        "device": ",".join(dict.fromkeys(devices)),
        "instances": str(len(devices)),
        "tolerance": f"{tolerance:g}" if verified else "",
        "verified": "yes" if verified else "no",
        "measured": ", ".join(f"{rows} row{'s' if rows > 1 else ''} {1e3 * s:.3g} ms" for rows, s in measured.items()),
        "labels": ",".join(label for label, of in request.config.routes.labels.items() if of == version),
    }
    for name, value in told.items():
        if value:
            config.parameters[f"{TOLD}{name}"].string_value = value


def _warm_up(
    candidate: Candidate, backend: Backend, facts: Facts, rows: int, extra: Sequence[tuple[Tensors, int]]
) -> None:
    """What each instance computes before it is ready, on the thread that will serve. Raises `RepositoryError`."""
    try:
        warmup.run(backend, facts.spec, warmup.of_samples(facts.samples, rows), extra)
    except Exception as error:
        raise RepositoryError(
            f"{candidate} fails to compute what it is warmed up with, up to {rows} rows: {type(error).__name__}: {error}"
        ) from error


def guard_of(request: LoadRequest, candidate: Candidate, facts: Facts, one: Proved, model: Model) -> Guard:
    """What is done when the backend of one instance raises; it is held to what its own device may differ by."""
    on_broken = request.on_broken
    if request.wrap or on_broken is None:
        return Guard(failures=1 if request.wrap else request.failures, told=not request.wrap)
    probe = facts.probe()
    return Guard(
        failures=request.failures,
        healthy=lambda: _answers(one, facts.spec, probe),
        lost=backends.module(candidate.backend).lost,
        hand_over=lambda requests, reason, error: on_broken(model, requests, reason, error),
    )


def _answers(one: Proved, spec: ModelSpec, probe: golden.Sample | None) -> bool:
    """Whether a backend still gives a golden sample's answer; a model without samples is believed to."""
    if probe is None:
        return True
    try:
        golden.replay(one.backend.run, spec, [probe], one.allowed, "the backend that failed")
    except VerificationFailed as error:
        log.error("broken: %s", error)
        return False
    return True


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


def _log_choice(request: LoadRequest, chosen: Order, damaged: dict[str, str]) -> None:
    if chosen.missing:
        log.warning("falling back at load: %s", chosen.missing, extra={"fields": request.fields()})
    if not chosen.measured:
        return
    fields = {"optimize_for": request.defaults.optimize_for, "chosen": str(chosen.first[0])}
    lines = table(chosen.measured, chosen.first[0]).splitlines()
    log.info("measured", extra={"fields": request.fields() | fields, "lines": lines})
    for backend, why in damaged.items():
        log.warning("not in %s: %s", backend, why, extra={"fields": request.fields()})


def _log_loaded(request: LoadRequest, candidate: Candidate, model: Model, worst: float) -> None:
    fields = {
        **request.fields(),
        "backend": candidate.backend,
        "asked": request.config.backend or request.defaults.backend,
        "device": ",".join(dict.fromkeys(request.config.devices(candidate.device))),
        "threads": candidate.threads,
        "instances": model.instances,
        "formats": ",".join(request.folder.formats()),
        "verified": model.verified,
        "largest_difference": float(f"{worst:.2g}"),
        "seconds": round(model.metrics.load_seconds, 3),
    }
    log.info("loaded", extra={"fields": fields})
