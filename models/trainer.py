"""What a framework contributes to a training, and the plan that it follows: `models.training` has the loop."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from models.examples import Batch
from models.networks import Network


class TrainingError(ValueError):
    """A plan that cannot be followed, or a training whose loss is no longer finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How to train. Raises `TrainingError` when a number is out of its range.

    `epochs` is the most there are; training ends `patience` epochs after the best one. `rows` is the size of a batch.
    `clip_norm` bounds the norm of all gradients together. `averaging` is the share of the earlier average that one
    more epoch keeps (0: no averaging). `noise` is added to the features of the training cases, anew in every epoch, in
    standard deviations of each feature. `validation` is the share held out to decide when to stop.
    """

    epochs: int = 100
    patience: int = 15
    rows: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    averaging: float = 0.0
    noise: float = 0.0
    validation: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "rows", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be positive")
        for name in ("weight_decay", "noise", "seed"):
            if not getattr(self, name) >= 0:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not 0 <= self.averaging < 1:
            raise TrainingError(f"averaging is {self.averaging}; it must be in [0, 1)")
        if not 0 < self.validation < 1:
            raise TrainingError(f"validation is {self.validation}; it must be between 0 and 1")


class Trainer(Protocol):
    """One network and its optimiser in one framework."""

    @property
    def network(self) -> Network:
        """The network whose weights `step` moves."""
        ...

    def step(self, batch: Batch) -> float:
        """Moves the weights once and returns the batch's mean loss: cross-entropy, or squared standardised error."""
        ...
