"""From a version on disk to a live model: choose a backend, open and prove it, warm it up.

Runs on a loader thread, never on one that answers requests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

from protos import model_config_pb2 as pb
from serving import backends
from serving.backends.base import Backend, Candidate
from serving.batching.computation import Computation, Stateless
from serving.batching.costs import Costs
from serving.batching.guard import Guard
from serving.batching.model import Instance, Model, Watched
from serving.batching.policy import BatchPolicy
from serving.batching.stateful import Stateful
from serving.clock import Clock
from serving.errors import RepositoryError, StartupError, VerificationFailed
from serving.loading import proof, telling, warmup
from serving.loading.digests import folder_digest
from serving.loading.order import Order, order
from serving.loading.proof import Facts, Proved
from serving.loading.request import Loaded, LoadRequest, Tried
from serving.repository import labels, model_config, reshapes, state_layouts
from serving.repository.config_in_force import config_in_force, policy_for
from serving.signature import streaming
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
    request = _as_asked(request)
    chosen = order(request.config, request.defaults, request.folder, request.known).preferring(request.before)
    if chosen.missing:
        log.warning("falling back at load: %s", chosen.missing, extra={"fields": request.fields()})
    if chosen.measured:
        telling.log_figures("measured before", request, chosen)
    errors: dict[Candidate, StartupError] = {}
    for candidate in chosen.at_load:
        try:
            loaded = load_in(request, candidate, chosen, began)
        except StartupError as error:
            errors[candidate] = error
            if len(chosen.at_load) > 1:
                log.warning("not in %s: %s", candidate, error, extra={"fields": request.fields()})
        else:
            fell_back = str(next(iter(errors.values()))) if errors and candidate not in chosen.first else ""
            return dataclasses.replace(
                loaded,
                order=chosen.serving(candidate),
                fell_back=chosen.missing or fell_back,
                damaged=telling.damaged(chosen.measured, {} if fell_back else errors, candidate),
            )
    raise next(iter(errors.values()))


def load_in(request: LoadRequest, candidate: Candidate, chosen: Order, began_ns: int | None = None) -> Loaded:
    """Makes a version live in one backend, on one device for each instance. Raises a `StartupError` of the fitting kind."""
    began_ns = request.clock.now_ns() if began_ns is None else began_ns
    request = _as_asked(request)
    tried = request.trial(request, candidate) if request.trial else Tried()
    facts, config = proof.read(request, candidate), None
    if facts.described:  # what contradicts the operator's configuration need not be loaded
        facts = _shown(request, facts)
        config = _configured(request, candidate, facts.spec)
    with _turn(candidate.backend):
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
                    _computation(one.backend, facts, model, request.clock),
                    functools.partial(
                        _warm_up, candidate, one.backend, facts, policy.max_rows, extra, model.costs, request.clock
                    ),
                    guard_of(request, candidate, facts, one, model),
                )
                for one in proved
            ]
            allowed = max(one.allowed for one in proved)
            batched = telling.how_batched(facts.spec, policy, model.touching)
            stateful = streaming.pairs(facts.spec) if facts.layout else ""
            telling.tell(
                model.config, request, candidate, chosen, allowed, batched, verified=facts.described, stateful=stateful
            )
        model.start(instances)
    model.metrics.load_seconds = (request.clock.now_ns() - began_ns) / 1e9
    telling.log_loaded(request, candidate, model, max(one.difference for one in proved))
    return Loaded(model=model, request=request, order=chosen, tried=tried.remark)


def _as_asked(request: LoadRequest) -> LoadRequest:
    """The same as the flags of the server have it. Raises `ModelConfigError`."""
    config = model_config.as_stateful(request.config, request.defaults.stateful)
    return request if config is request.config else dataclasses.replace(request, config=config)


@functools.cache
def _turn(backend: str) -> AbstractContextManager[object]:
    """What is held while a backend is loaded and warmed up for the first time."""
    return threading.Lock() if backends.module(backend).ONE_BY_ONE else contextlib.nullcontext()


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
        costs=Costs(request.learnt.find(request.folder, candidate) if request.learnt else ()),
        on_closed=functools.partial(_keep_costs, request, candidate),
        clock=request.clock,
        sequence_policy=request.config.sequences,
        state_layout=facts.layout,
    )


def _keep_costs(request: LoadRequest, candidate: Candidate, model: Model) -> None:
    if request.learnt and model.spec.joins_lengths:
        request.learnt.keep(request.folder, candidate, model.costs.known())


def _finite_only(chosen: str, spec: ModelSpec) -> bool:
    """Whether NaN and Inf are refused: as the operator has chosen, else as the specification says."""
    return chosen == REFUSE if chosen else spec.refuses_nonfinite


def _shown(request: LoadRequest, facts: Facts) -> Facts:
    """The facts with the shapes that the operator shows clients, and as those of a stateful model. Raises `ModelConfigError`."""
    spec, layout = reshapes.shown(facts.spec, request.config.written), None
    if request.config.sequences:
        spec, layout = state_layouts.made_stateful(spec, request.config, request.folder.path.parent, _digest(request))
    return dataclasses.replace(facts, spec=spec, layout=layout)


def _digest(request: LoadRequest) -> str:
    """What tells a bare version from others, whichever of its files computes; empty where a specification does."""
    with contextlib.suppress(OSError):  # a file that nobody can read, as its load says
        if not request.folder.described:
            return folder_digest(request.folder.path)
    return ""


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
    return Watched(share, differs, found, functools.partial(_found_touching, request, candidate))


def _found_touching(request: LoadRequest, candidate: Candidate, model: Model, found: str) -> None:
    telling.tell_alone(model)
    if request.found_touching:
        request.found_touching.keep(request.folder, candidate, found)


def _configured(request: LoadRequest, candidate: Candidate, spec: ModelSpec) -> pb.ModelConfig:
    labelled = labels.of_outputs(request.labels, spec)
    return config_in_force(request.config, spec, candidate.backend, candidate.device, labelled=labelled)


def _computation(backend: Backend, facts: Facts, model: Model, clock: Clock) -> Computation:
    """What stands between worker and backend."""
    if facts.layout is None:
        return Stateless(backend, facts.spec, clock)
    return Stateful(backend, facts.spec, facts.layout, clock, shown=model.watch is not None)


def _warm_up(
    candidate: Candidate,
    backend: Backend,
    facts: Facts,
    rows: int,
    extra: Sequence[tuple[Tensors, int]],
    costs: Costs,
    clock: Clock,
) -> None:
    """What each instance computes before it is ready, on the thread that will serve. Raises `RepositoryError`."""
    try:
        warmup.run(backend, facts.spec, facts.samples, rows, extra, costs, clock)
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
