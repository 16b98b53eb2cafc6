"""A version's files opened in a backend and proved: what is verified is the very object that will serve, on its device."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from serving import backends
from serving.backends.base import Backend, Candidate, Contents, first_line
from serving.backends.rows_first import laid_out
from serving.batching.aside import Aside
from serving.errors import RepositoryError, ServingError
from serving.loading.request import LoadRequest
from serving.machine.devices import CPU
from serving.repository import model_config, state_layouts
from serving.repository.operator_config import OperatorConfig
from serving.sequences.policy import StateLayout
from serving.signature.spec import MAX_BATCH_SIZE, WRITTEN_IN, ModelSpec
from serving.signature.stated import Stated
from serving.verification import golden, inspection
from serving.verification.hints import Hints, NaNAlone, Unclear

Side = Mapping[str, Stated]  # what is said of the inputs, or of the outputs


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the version says of itself: its signature, and samples with the trained model's own answers, if it has any.

    `layout` is the state of each sequence of a stateful model.
    """

    spec: ModelSpec
    samples: Sequence[golden.Sample]
    described: bool
    layout: StateLayout | None = None

    def probe(self) -> golden.Sample | None:
        """The sample that is answered soonest."""
        return min(self.samples, key=lambda one: sum(array.size for array in one.inputs.values()), default=None)


@dataclasses.dataclass(frozen=True)
class Proved:
    """A loaded backend that has given the samples' answers, up to `difference`; `allowed` is what its device may differ by."""

    backend: Backend
    allowed: float
    difference: float


def read(request: LoadRequest, candidate: Candidate) -> Facts:
    """What is known before anything is loaded. Raises `RepositoryError`."""
    folder = request.folder
    if folder.described:
        facts = Facts(folder.spec(), folder.samples(), described=True)
        _check_steps(facts, folder.path)
        return facts
    artifact, said = folder.artifact(candidate.backend), model_config.stated(request.config)
    source = {
        WRITTEN_IN: f"config.pbtxt of model '{request.name}'",
        MAX_BATCH_SIZE: request.config.written.max_batch_size,
    }
    stated = _stated(request, candidate, artifact, said)
    return Facts(inspection.unproved(*stated, source=source if said else {}), (), described=False)


def _stated(
    request: LoadRequest, candidate: Candidate, artifact: Path, said: tuple[Side, Side] | None
) -> tuple[Side, Side]:
    """What the operator says of the tensors, else what the file does.

    The file is asked, too, where one element may be a scalar, and of the tensors that clients of a stateful model do not see.
    """
    module = backends.module(candidate.backend)
    if said is None:
        return module.stated(artifact)
    names = model_config.may_be_scalars(request.config)
    if not names and not request.config.sequences:
        return said
    sides: tuple[Side, Side] = ({}, {})
    with contextlib.suppress(RepositoryError):  # it states nothing, or cannot be read, which is told when it is loaded
        sides = module.stated(artifact)
    if request.config.sequences:
        said = state_layouts.with_hidden(said, sides, request.config)
    own = {**sides[0], **sides[1]}
    rows = 1 if request.config.written.max_batch_size else 0

    def with_scalars(side: Side) -> Side:
        made = dict(side)
        for name in names & side.keys() & own.keys():
            shape = own[name][1]
            if shape is not None and len(shape) == rows:
                made[name] = (side[name][0], shape)
        return made

    return with_scalars(said[0]), with_scalars(said[1])


def _check_steps(facts: Facts, folder: Path) -> None:
    """Raises `RepositoryError` where an output has other steps than the input: answers would be cut at the wrong place."""
    for tensor in facts.spec.outputs:
        for sample in facts.samples:
            answer, steps = sample.outputs.get(tensor.name), facts.spec.steps(sample.inputs)
            if tensor.steps_axis is None or answer is None or answer.ndim <= tensor.steps_axis:
                continue
            if answer.shape[tensor.steps_axis] != steps:
                raise RepositoryError(
                    f"{folder}: {tensor.name} is said to have its steps on axis {tensor.steps_axis}, but of {steps} steps a "
                    f"golden sample gives {answer.shape[tensor.steps_axis]}: bring the file in again with lstm-export import"
                )


@contextlib.contextmanager
def opened(
    request: LoadRequest, candidate: Candidate, facts: Facts, level: str = ""
) -> Iterator[tuple[Facts, list[Proved]]]:
    """A backend for each instance, proved; what a bare file turned out to be is in the facts that come back.

    They are loaded at this `level` of optimisation, empty for the furthest.

    Raises a `StartupError` of the fitting kind. Whatever is raised within, all of them are closed.
    """
    proved: list[Proved] = []
    with contextlib.ExitStack() as left_open:
        for device in request.config.devices(candidate.device):
            facts, one = _open(request, candidate, device, facts, level, first=not proved)
            left_open.callback(one.backend.close)
            proved.append(one)
        yield facts, proved
        left_open.pop_all()


def _open(
    request: LoadRequest, candidate: Candidate, device: str, facts: Facts, level: str, *, first: bool
) -> tuple[Facts, Proved]:
    module, artifact = backends.module(candidate.backend), request.folder.artifact(candidate.backend)
    backend = module.load(artifact, facts.spec, device, request.defaults.options(candidate.threads, level))
    try:
        if first and not facts.described:
            with module.careful():
                hints = _hints(facts.spec, request.config)
                facts = dataclasses.replace(
                    facts, spec=_found(artifact, facts.spec, backend, hints, module.contents(artifact))
                )
        backend = laid_out(backend, facts.spec)
        if request.wrap:
            backend = request.wrap(backend)
        elif device == CPU:
            backend = Aside(backend, request.clock)
        what = f"{request.name} version {request.folder.number} in {candidate.backend} on {device}"
        allowed = allowed_on(device, facts.spec, allow_tf32=request.defaults.allow_tf32)
        return facts, Proved(backend, allowed, golden.replay(backend.run, facts.spec, facts.samples, allowed, what))
    except BaseException:
        backend.close()
        raise


def allowed_on(device: str, spec: ModelSpec, *, allow_tf32: bool) -> float:
    """How far a backend may be from the trained model on a device; CPUs know no TF32."""
    return golden.tolerance(spec, tf32=allow_tf32 and device != CPU)


def _hints(stated: ModelSpec, config: OperatorConfig) -> Hints:
    """What the operator says of a bare file. Raises `ModelConfigError` where that names what it does not have."""
    rows = model_config.rows(config) if model_config.stated(config) is not None else {}
    values, state = _any_value(stated, rows), None
    if config.sequences:
        lie, hold, state = state_layouts.trial_hints(stated, config)
        rows, values = {**lie, **rows}, {**values, **hold}
    return Hints(rows=rows, values=values, state=state)


def _found(artifact: Path, stated: ModelSpec, backend: Backend, hints: Hints, contents: Contents) -> ModelSpec:
    """What holds of a bare file. Raises `RepositoryError` where a person has to decide."""
    try:
        found = inspection.inspect(stated, backend.run, hints, contents).spec
        return dataclasses.replace(found, may_be_empty=contents.may_be_empty)
    except NaNAlone as error:
        raise RepositoryError(f"{artifact} cannot be served: {error}, by: lstm-export import FILE") from error
    except Unclear as error:
        raise RepositoryError(
            f"{artifact} cannot be served without a description: {error}. These are flags of: lstm-export import FILE"
        ) from error
    except ServingError:
        raise
    except Exception as error:  # whatever a runtime raises
        raise RepositoryError(
            f"{artifact} ran on some rows and not on others, so nothing is proved of them: {first_line(error)}"
        ) from error


def _any_value(stated: ModelSpec, rows: Mapping[str, int | None]) -> Mapping[str, float | str]:
    """What lone values hold in a trial of a file that the operator says has no rows: nothing is proved by them then."""
    if not rows or any(axis is not None for axis in rows.values()):
        return {}
    return {tensor.name: 1 for tensor in stated.inputs if not tensor.file_shape}
