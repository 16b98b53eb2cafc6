"""Proves that a written file computes what the trained model computes, through the backend that will serve it.

The reference is the network in the framework that trained it, not the weights run through some other implementation of
ours; so a mistake in reading the weights is found here as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export import canonical, trials
from export.trials import Trial
from models.networks import Network
from serving import backends
from serving.backends.base import Backend, Options
from serving.signature.spec import ModelSpec
from serving.verification.golden import Sample, check_agreement

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


def check(name: str, backend_name: str, artifact: Path, spec: ModelSpec, proven: Sequence[Proven]) -> float:
    """The largest disagreement of the file with the trained model over all trials, whole and (streamable) in pieces.

    Loads `artifact` through the backend on the CPU, one thread. Raises `VerificationFailed`, saying in which trial,
    where and by how much, above the tolerance of `spec`, and what `load` of a backend raises.
    """
    backend = backends.module(backend_name).load(artifact, spec, "cpu", Options())
    try:
        worst = 0.0
        for case in proven:
            got = backend.run(case.trial.inputs, NAMES)
            worst = max(worst, check_agreement(f"{name} ({case.trial.name})", got, case.expected, spec.tolerance))
            if spec.streamable and not trials.padded(case.trial):
                got = _in_pieces(backend, spec, case.trial)
                what = f"{name} ({case.trial.name}, fed in pieces)"
                worst = max(worst, check_agreement(what, got, case.expected, spec.tolerance))
        return worst
    finally:
        backend.close()


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
