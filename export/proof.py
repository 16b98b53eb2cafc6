"""Proves that a written file computes what the trained model computes, through the backend that will serve it.

The reference is the network in the framework that trained it, not the weights run through some other implementation of
ours; so a mistake in reading the weights is found here as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export import canonical, float64, trials
from export.trials import Trial
from models.checkpoint import Checkpoint
from models.networks import Network
from serving import backends
from serving.backends.base import Backend, Options
from serving.errors import VerificationFailed
from serving.signature.spec import ModelSpec
from serving.verification.golden import Sample, check_agreement, disagreement

NAMES = ("y", "hn", "cn")


@dataclasses.dataclass(frozen=True)
class Proven:
    """A trial and what the trained model answered to it: float32 `y`, `hn`, `cn`."""

    trial: Trial
    expected: dict[str, npt.NDArray[Any]]

    @property
    def sample(self) -> Sample:
        return Sample(self.trial.inputs, self.expected)


def ask(network: Network, made: Sequence[Trial]) -> list[Proven]:
    """The trained model's answers. Raises what the network raises."""
    return [Proven(trial, network.predict(trial.inputs)) for trial in made]


def check(
    name: str,
    backend_name: str,
    artifact: Path,
    spec: ModelSpec,
    proven: Sequence[Proven],
    natural: Callable[[], float] | None = None,
) -> float:
    """The largest disagreement of the file with the trained model over all trials, whole and (streamable) in pieces.

    Loads `artifact` through the backend on the CPU, one thread. Raises `VerificationFailed` above the tolerance of `spec`,
    saying in which trial and by how much, and what `natural` explains, the distance of float32 from float64. Raises what
    `load` of a backend raises.
    """
    backend = backends.module(backend_name).load(artifact, spec, "cpu", Options())
    try:
        gaps: list[float] = []
        failed: list[VerificationFailed] = []
        for what, got, expected in _answers(backend, spec, proven):
            try:
                gaps.append(check_agreement(f"{name} ({what})", got, expected, spec.tolerance))
            except VerificationFailed as error:
                gaps.append(max(disagreement(got[each], expected[each]) for each in expected))
                failed.append(error)
    finally:
        backend.close()
    worst = max(gaps, default=0.0)
    if failed:
        raise VerificationFailed(f"{failed[0]}; {float64.told(worst, natural() if natural else None)}")
    return worst


def natural(checkpoint: Checkpoint, proven: Sequence[Proven]) -> float:
    """How far the trained model's answers are from the same network's in float64."""
    worst = 0.0
    for case in proven:
        wide = float64.predict(checkpoint.config, checkpoint.weights, case.trial.inputs)
        worst = max([worst, *(disagreement(case.expected[name], wide[name]) for name in NAMES)])
    return worst


def _answers(
    backend: Backend, spec: ModelSpec, proven: Sequence[Proven]
) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]]:
    """What was asked, what the file answers, and the trained model."""
    for case in proven:
        yield case.trial.name, dict(backend.run(case.trial.inputs, NAMES)), case.expected
        if spec.streamable and not trials.padded(case.trial):
            yield f"{case.trial.name}, fed in pieces", _in_pieces(backend, spec, case.trial), case.expected


def _in_pieces(backend: Backend, spec: ModelSpec, trial: Trial) -> dict[str, npt.NDArray[Any]]:
    """The answer to a trial fed piece by piece, each from the state that the one before left."""
    state = {pair.input: trial.inputs[pair.input] for pair in canonical.STATE}
    answers = []
    for piece in trials.pieces(trial):
        answers.append(backend.run({**piece, **state}, NAMES))
        state = {pair.input: answers[-1][pair.output] for pair in canonical.STATE}
    last = dict(answers[-1])
    y = next(tensor for tensor in spec.outputs if tensor.name == "y")
    if len(y.shape) == 3:  # [rows, steps, outputs]: every piece answered for its own steps
        last["y"] = np.concatenate([answer["y"] for answer in answers], axis=1)
    return last
