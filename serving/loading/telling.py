"""What people are told of a version that was loaded: in the configuration in force, in the index and in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from protos import model_config_pb2 as pb
from serving.backends.base import Candidate, Measured
from serving.batching.model import Model
from serving.batching.policy import BatchPolicy
from serving.errors import StartupError
from serving.loading.order import INSTEAD, Order
from serving.loading.ranking import table
from serving.loading.request import LoadRequest
from serving.repository import labels, stateful
from serving.repository.model_config import TOLD
from serving.signature import streaming
from serving.signature.spec import ModelSpec

log = logging.getLogger(__name__)

ALONE = "alone"
NOT_MEASURED, BEING_MEASURED, PUT_OFF = "not measured yet", "being measured", "to be measured when nobody asks"
CHANGED = "left alone, as its files have changed since"


def tell(
    config: pb.ModelConfig,
    request: LoadRequest,
    candidate: Candidate,
    chosen: Order,
    tolerance: float,
    batched: str,
    *,
    verified: bool,
    stateful: str = "",
) -> None:
    """Puts into the configuration in force what no field of it has room for, as parameters of our own.

    `stateful` are the pairs of the state that is kept between requests.
    """
    devices = request.config.devices(candidate.device)
    version = request.folder.number
    told = {
        "backend": candidate.backend,
        "device": ",".join(dict.fromkeys(devices)),
        "instances": str(len(devices)),
        "batched": batched,
        "tolerance": f"{tolerance:g}" if verified else "",
        "verified": "yes" if verified else "no",
        "stateful": stateful,
        "labels": ",".join(label for label, of in request.config.routes.labels.items() if of == version),
        **_choice(candidate, chosen),
    }
    _put(config, told)


def how_batched(spec: ModelSpec, policy: BatchPolicy, touching: str = "") -> str:
    """What is computed together, in a word or two."""
    if not policy.dynamic or policy.max_rows < 2 or touching:
        return ALONE
    return "any lengths" if spec.joins_lengths and policy.max_padding_ratio else "equal shapes"


def _choice(candidate: Candidate, chosen: Order, doing: str = "") -> dict[str, str]:
    """Why it is this one that serves, and how fast it was measured to be."""
    times = next((one.p50_seconds for one in chosen.measured if one.candidate == candidate and not one.failed), {})
    how = chosen.how if candidate == chosen.first[0] else f"{INSTEAD} of {chosen.first[0]}"
    doing = doing or (NOT_MEASURED if chosen.unmeasured else _by_chance(chosen))
    return {
        "chosen": ", ".join(filter(None, (how, doing))),
        "measured": ", ".join(f"{rows} row{'s' if rows > 1 else ''} {1e3 * s:.3g} ms" for rows, s in times.items()),
    }


def _by_chance(chosen: Order) -> str:
    """The backends that could not be measured for no fault of theirs, with the reason of each."""
    reasons = {one.candidate.backend: one.failed for one in reversed(chosen.measured) if one.by_chance}
    return ", ".join(f"{name} could not be measured: {why.splitlines()[0]}" for name, why in reasons.items())


def tell_choice(model: Model, chosen: Order, doing: str = "") -> None:
    """Puts into the configuration in force what is known by now of the choice of a model that serves, and what is being done."""
    _exchange(model, _choice(model.candidate, chosen, doing))


def tell_alone(model: Model) -> None:
    """Puts into the configuration in force of a model that serves that from now on it computes each request by itself."""
    _exchange(model, {"batched": ALONE})


def _exchange(model: Model, told: Mapping[str, str]) -> None:
    config = pb.ModelConfig()
    config.CopyFrom(model.config)
    _put(config, told)
    model.config = config  # exchanged as a whole: others read it meanwhile


def _put(config: pb.ModelConfig, told: Mapping[str, str]) -> None:
    for name, value in told.items():
        if value:
            config.parameters[f"{TOLD}{name}"].string_value = value


def damaged(
    measured: Sequence[Measured], errors: Mapping[Candidate, StartupError], serving: Candidate
) -> dict[str, str]:
    """The backends whose file cannot be served or computes something else, with the reason of each: as measured or as loaded.

    What could not be measured by chance is not among them.
    """
    told = {one.candidate.backend: one.failed for one in reversed(measured) if one.failed and not one.by_chance}
    told |= {candidate.backend: str(error) for candidate, error in errors.items()}
    able = {one.candidate.backend for one in measured if not one.failed} - {each.backend for each in errors}
    return {name: why.splitlines()[0] for name, why in told.items() if name not in (*able, serving.backend)}


def log_figures(message: str, request: LoadRequest, chosen: Order) -> None:
    """The table by which a choice was made."""
    fields = {"optimize_for": request.defaults.optimize_for, "chosen": str(chosen.first[0])}
    lines = table(chosen.measured, chosen.first[0]).splitlines()
    log.info(message, extra={"fields": request.fields() | fields, "lines": lines})


def log_loaded(request: LoadRequest, candidate: Candidate, model: Model, worst: float) -> None:
    """That a version is live, and how it came to that."""
    fields = {
        **request.fields(),
        "backend": candidate.backend,
        "asked": request.config.backend or request.defaults.backend,
        "choice": model.config.parameters[f"{TOLD}chosen"].string_value,
        "device": ",".join(dict.fromkeys(request.config.devices(candidate.device))),
        "threads": candidate.threads,
        "instances": model.instances,
        "formats": ",".join(request.folder.formats()),
        "verified": model.verified,
        **({"stateful": streaming.pairs(model.spec)} if model.state_layout else {}),
        "largest_difference": float(f"{worst:.2g}"),
        "seconds": round(model.metrics.load_seconds, 3),
    }
    log.info("loaded", extra={"fields": fields})
    if model.state_layout and (declare := stateful.undeclared(model.spec)):
        log.warning(
            "inputs that clients have to send are named as controls of sequences are: if they are some, declare them in "
            "config.pbtxt by %s",
            declare,
            extra={"fields": request.fields()},
        )
    for said in labels.miscounted(model.labels, model.spec):
        log.warning("%s", said, extra={"fields": request.fields()})
