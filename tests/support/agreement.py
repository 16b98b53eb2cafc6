"""Whether something answers what the equations answer: the one check of the matrix, which every planted fault must fail.

All questions are cuts of one batch of 64 rows and 256 steps. What a row is answered depends on nothing but the row, so
the equations are asked once, and a row alone, among six others or in pieces is held to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.formats import Writer
from export.precision import Stored
from models.checkpoint import Weights
from models.config import LSTMConfig
from models.networks import Network
from serving import backends
from serving.backends.base import Options
from tests.support import artefacts, oracle

Arrays = Mapping[str, npt.NDArray[Any]]
Answer = Callable[[Arrays], Arrays]

NAMES = ("y", "hn", "cn")
EQUATIONS = "the equations"
TOLERANCE = 1e-5

# By how much company may move a row's answer, on a CPU. ONNX Runtime rounds a row in the same way whoever is beside it.
# The matrix products of PyTorch and TensorFlow add in another order when there are more rows, which one depends on the
# processor: 7.2e-7 was the most that was seen. For the two frameworks themselves that is no different.
COMPANY = {"onnx": 0.0, **dict.fromkeys(("torchscript", "savedmodel", "torch", "keras"), 1e-6)}

ROWS, STEPS = 64, 256
LENGTHS = np.random.default_rng(5).integers(1, STEPS + 1, ROWS)
WHOLE_ROWS, WHOLE_STEPS = [2, 3], 22  # these are fed in pieces as well
LENGTHS[:4] = STEPS, 1, WHOLE_STEPS, WHOLE_STEPS
CUTS: dict[str, tuple[list[int], int]] = {  # which rows, and how many of their steps
    "64 rows": (list(range(ROWS)), STEPS),
    "one row": ([0], STEPS),
    "one row of one step": ([1], 1),
    "two rows, one padded": ([0, 1], STEPS),
    "two rows of equal length": (WHOLE_ROWS, WHOLE_STEPS),
    "seven rows, all padded": ([row for row in range(4, ROWS) if LENGTHS[row] < STEPS][:7], STEPS),
}
PIECES = (1, 3, 7)  # steps; only the first divides 22
GARBAGE = {"features": 1e30, "tokens": -1}


class Disagreement(AssertionError):
    """An answer that is not the expected one; the message says whose, to what, against what, and by how much."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A batch for the network of `config` with `weights`, and what each of `references` answers to it."""

    config: LSTMConfig
    weights: Weights
    inputs: Arrays
    references: Mapping[str, Arrays]

    def cut(self, arrays: Arrays, rows: list[int], steps: int) -> dict[str, npt.NDArray[Any]]:
        """The inputs or the outputs of some rows and of their first steps."""
        by_step = ("x", "y") if self.config.head == "values_per_step" else ("x",)
        return {name: array[rows, :steps] if name in by_step else array[rows] for name, array in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Figures:
    """The largest difference from any reference, and the largest one that company makes."""

    difference: float
    company: float


def question(config: LSTMConfig, weights: Weights, *others: tuple[str, Answer]) -> Question:
    """The batch for `config`, and what the equations with these weights and all `others` answer to it.

    Features lie about the mean that the network knows. The rows are padded in turn with what `artefacts.batch` pads with
    and with `GARBAGE`.
    """
    inputs = artefacts.batch(config, ROWS, STEPS, lengths=LENGTHS)
    if config.input == "features":
        inputs["x"] += weights["input.mean"]
    for row in range(1, ROWS, 2):
        inputs["x"][row, LENGTHS[row] :] = GARBAGE[config.input]
    references: dict[str, Arrays] = {EQUATIONS: oracle.predict(config, weights, inputs)}
    references.update((name, answer(inputs)) for name, answer in others)
    return Question(config, weights, inputs, references)


def check(name: str, answer: Answer, asked: Question) -> Figures:
    """Asks every cut, whole and (streamable) in pieces. Raises `Disagreement`; `name` is one of `COMPANY`."""
    difference, answers = 0.0, {}
    for cut, (rows, steps) in CUTS.items():
        answers[cut] = answer(asked.cut(asked.inputs, rows, steps))
        for reference, expected in asked.references.items():
            what = f"{name} and {reference}, {cut}"
            wanted = asked.cut(expected, rows, steps)
            difference = max(difference, agree(what, answers[cut], wanted))
        if asked.config.head == "values_per_step" and answers[cut]["y"][np.arange(steps) >= LENGTHS[rows, None]].any():
            raise Disagreement(f"{name}, {cut}: y is not exactly 0 behind a row's length")
    if asked.config.streamable:
        for size in PIECES:
            got = _in_pieces(answer, asked, size)
            for reference, expected in asked.references.items():
                what = f"{name} and {reference}, in pieces of {size}"
                difference = max(difference, agree(what, got, asked.cut(expected, WHOLE_ROWS, WHOLE_STEPS)))
    company = max(
        agree(f"{name} and itself in company, {cut}", got, asked.cut(answers["64 rows"], *CUTS[cut]), COMPANY[name])
        for cut, got in answers.items()
    )
    return Figures(difference, company)


def check_file(
    form: str, writer: Writer, asked: Question, folder: Path, stored: Mapping[str, Stored] | None = None
) -> Figures:
    """What `writer` writes of the question's weights, read and asked through its backend."""
    module = backends.module(writer.BACKEND)
    path = folder / module.FILE_NAME
    writer.write(asked.config, asked.weights, path, stored)
    backend = module.load(path, artefacts.spec(asked.config, asked.weights), "cpu", Options())
    try:
        return check(form, lambda inputs: backend.run(inputs, NAMES), asked)
    finally:
        backend.close()


def check_reader(framework: str, network: Network) -> Figures:
    """A network against the weights that its reader makes of it, and against weights that its reader puts into it."""
    own = check(framework, network.predict, question(network.config, network.canonical_weights()))
    weights = artefacts.weights(network.config)
    network.load_canonical(weights)
    loaded = check(framework, network.predict, question(network.config, weights))
    return Figures(max(own.difference, loaded.difference), max(own.company, loaded.company))


def _in_pieces(answer: Answer, asked: Question, size: int) -> Arrays:
    """What whole rows are answered when they come in pieces, each from the state that the one before has left."""
    inputs = asked.cut(asked.inputs, WHOLE_ROWS, WHOLE_STEPS)
    state = {name: inputs[name] for name in ("h0", "c0")}
    answers = []
    for start in range(0, WHOLE_STEPS, size):
        x = inputs["x"][:, start : start + size]
        answers.append(answer({"x": x, "lengths": np.full(len(x), x.shape[1]), **state}))
        state = {"h0": answers[-1]["hn"], "c0": answers[-1]["cn"]}
    if asked.config.head != "values_per_step":
        return answers[-1]
    return {**answers[-1], "y": np.concatenate([piece["y"] for piece in answers], axis=1)}


def agree(what: str, got: Arrays, expected: Arrays, tolerance: float = TOLERANCE) -> float:
    """The largest difference, relative above 1. Raises `Disagreement` where it is above `tolerance` or not a number."""
    worst = 0.0
    for name in NAMES:
        if got[name].dtype != np.float32 or got[name].shape != expected[name].shape:
            raise Disagreement(f"{what}: {name} is {got[name].dtype} {got[name].shape}, not {expected[name].shape}")
        difference = float(np.max(np.abs(got[name] - expected[name]) / np.maximum(1.0, np.abs(expected[name]))))
        if not difference <= tolerance:
            raise Disagreement(f"{what}: {name} differs by {difference:.3g}; at most {tolerance:.3g} is allowed")
        worst = max(worst, difference)
    return worst
