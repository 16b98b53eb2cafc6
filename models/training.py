"""The loop that every framework trains in: epochs, validation, averaging, early stopping; plain numpy.

A framework contributes one thing, a `Trainer` that takes one optimiser step (`models.torch_training`,
`models.keras_training`). What is validated, kept and returned is never the network that the optimiser moves but the
running average of its weights over the epochs (Polyak and Juditsky 1992), which wavers much less from epoch to epoch
and so lets a small validation part choose well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from models import networks
from models.checkpoint import Weights
from models.config import LSTMConfig
from models.examples import Examples, batches, scaling, split, with_noise
from models.scoring import evaluate
from models.trainer import Plan, Trainer, TrainingError


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One point of the learning curve; `score` is the validation accuracy, or minus the mean absolute error."""

    number: int
    training_loss: float
    validation_loss: float
    score: float


@dataclasses.dataclass(frozen=True)
class Trained:
    """The best weights (of the epoch `best`, or of a refit that was as long) and the whole way there."""

    config: LSTMConfig
    weights: Weights
    best: Epoch
    history: tuple[Epoch, ...]


def train(
    framework: str,
    config: LSTMConfig,
    examples: Examples,
    plan: Plan,
    watch: Callable[[Epoch], None] = lambda _: None,
    validation: Examples | None = None,
    refit: Examples | None = None,
) -> Trained:
    """Trains a network of `config` in `framework` on `examples`, and lets `validation` decide nothing but when to stop.

    Without `validation`, the plan's share of `examples` is held out at random; examples that are ordered in time need a
    validation part of their own. With `refit`, a fresh network then learns from those examples for as many epochs as were
    best, and its weights are returned; so the network learns from the validation part too in the end.

    `watch` is called after every epoch but those of the refit. The same seed on the same machine gives the same weights.
    Raises `TrainingError`, and `models.examples.ExamplesError` when there are too few cases.
    """
    rng = np.random.default_rng(plan.seed)
    training = examples
    if validation is None:
        training, validation = split(examples, plan.validation, rng)
    averaged = networks.build(framework, config)
    history: list[Epoch] = []
    best, best_weights = Epoch(0, np.inf, np.inf, -np.inf), averaged.canonical_weights()
    for number, (loss, average) in enumerate(_epochs(framework, config, training, plan, rng), start=1):
        averaged.load_canonical(average)
        history.append(Epoch(number, loss, *evaluate(averaged, validation)))
        watch(history[-1])
        if history[-1].validation_loss < best.validation_loss:
            best, best_weights = history[-1], average
        elif number - best.number >= plan.patience:
            break
    if refit is not None:
        shortened = dataclasses.replace(plan, epochs=best.number)
        *_, (_, best_weights) = _epochs(framework, config, refit, shortened, np.random.default_rng(plan.seed))
    return Trained(config, best_weights, best, tuple(history))


def _epochs(
    framework: str, config: LSTMConfig, cases: Examples, plan: Plan, rng: np.random.Generator
) -> Iterator[tuple[float, dict[str, npt.NDArray[np.float32]]]]:
    """The mean loss of each epoch of the plan and the running average of the weights after it."""
    if plan.noise > 0 and config.input == "tokens":
        raise TrainingError(f"noise is {plan.noise}, but tokens have no numbers that it could be added to")
    scales = scaling(config, cases)
    trainer = start(framework, config, scales, plan)
    average: dict[str, npt.NDArray[np.float32]] = {}
    for number in range(1, plan.epochs + 1):
        seen = with_noise(cases, plan.noise * scales["input.scale"], rng) if plan.noise > 0 else cases
        loss = float(np.mean([trainer.step(batch) for batch in batches(seen, plan.rows, rng)]))
        if not np.isfinite(loss):
            raise TrainingError(f"the loss of epoch {number} is {loss}; try a lower learning rate")
        keep = min(plan.averaging, 1 - 1 / number)  # the first epochs count alike, none is favoured for being first
        average = {
            name: (keep * average[name] + (1 - keep) * weights).astype(np.float32) if keep else weights
            for name, weights in trainer.network.canonical_weights().items()
        }
        yield loss, average


def start(framework: str, config: LSTMConfig, scales: Weights, plan: Plan) -> Trainer:
    """A fresh network of `config` with these scales, ready for its first step in `framework`, "torch" or "keras"."""
    if framework == "torch":
        from models.torch_training import TorchTrainer

        return TorchTrainer(config, scales, plan)
    if framework == "keras":
        networks.silence_tensorflow()
        from models.keras_training import KerasTrainer

        return KerasTrainer(config, scales, plan)
    raise ValueError(f"framework is {framework!r}; it must be one of {', '.join(networks.FRAMEWORKS)}")
