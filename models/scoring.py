"""How answers are judged: one way for a network in training, for the tested network and for what it must beat.

A target may be NaN. That step has no answer yet, or lies in the warm-up before the part that is judged, and it counts
neither in a loss nor in a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.examples import Examples, in_order, is_classes
from models.networks import Network

Array = npt.NDArray[Any]

EVALUATION_ROWS = 256


def evaluate(network: Network, examples: Examples) -> tuple[float, float]:
    """(loss, score) over all cases or, per step, over all true steps.

    Classes: mean cross-entropy and accuracy. Values: mean squared error in units of the network's `output.scale`, and
    minus the mean absolute error in raw units (so that more is better).
    """
    y, targets = answers(network, examples), truth(examples)
    if is_classes(examples):
        return float(-np.log(np.maximum(y[np.arange(len(y)), targets], 1e-12)).mean()), accuracy(y, targets)
    scale = network.canonical_weights()["output.scale"]
    return float(np.nanmean(((y - targets) / scale) ** 2)), -float(np.nanmean(np.abs(y - targets)))


def answers(network: Network, examples: Examples) -> npt.NDArray[np.float64]:
    """What the network says: `[cases, classes]` or `[cases, outputs]`; per step `[true steps of all cases, outputs]`."""
    parts = []
    for batch in in_order(examples, EVALUATION_ROWS):
        y = network.predict({"x": batch.x, "lengths": batch.lengths})["y"].astype(np.float64)
        parts += [row[:length] for row, length in zip(y, batch.lengths, strict=True)] if y.ndim == 3 else [y]
    return np.concatenate(parts)


def truth(examples: Examples) -> Array:
    """The targets in the order of `answers`: int64 `[cases]`, or float32 `[cases or steps, outputs]`, NaN for none."""
    targets = examples.targets
    return targets if isinstance(targets, np.ndarray) else np.concatenate(list(targets))


def score(y: Array, examples: Examples, outputs: Sequence[str]) -> float | dict[str, float]:
    """The accuracy of answers `y`, or the mean absolute error of each output by its name."""
    targets = truth(examples)
    if is_classes(examples):
        return accuracy(y, targets)
    return dict(zip(outputs, mean_absolute_errors(y, targets).tolist(), strict=True))


def accuracy(y: Array, classes: npt.NDArray[np.int64]) -> float:
    """The share of rows of `y` (`[cases, classes]`) that are largest at the true class."""
    return float((y.argmax(axis=-1) == classes).mean())


def mean_absolute_errors(y: Array, targets: Array) -> npt.NDArray[np.float64]:
    """The mean absolute error of each output, `[outputs]`, over the rows whose target is not NaN; in raw units."""
    errors: npt.NDArray[np.float64] = np.nanmean(np.abs(y.astype(np.float64) - targets), axis=0)
    return errors
