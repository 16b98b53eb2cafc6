"""The picture of a training: loss and score over the epochs.

The validation loss may lie *below* the training loss; dropout and noise make the training cases harder, and the
validation looks at averaged weights without either.
"""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.training import Trained


def draw(trained: Trained, title: str) -> bytes:
    """A PNG of 1280 x 560 pixels: losses on the left (logarithmic), the validation score on the right."""
    epochs = [epoch.number for epoch in trained.history]
    figure = Figure(figsize=(8, 3.5), dpi=160, layout="constrained")
    losses, scores = figure.subplots(1, 2)
    losses.plot(epochs, [epoch.training_loss for epoch in trained.history], color="C7", label="training")
    losses.plot(epochs, [epoch.validation_loss for epoch in trained.history], color="C0", label="validation")
    losses.set(yscale="log", ylabel="cross-entropy" if trained.config.head == "classification" else "squared error")
    sign, name = (1, "accuracy") if trained.config.head == "classification" else (-1, "mean absolute error")
    scores.plot(epochs, [sign * epoch.score for epoch in trained.history], color="C0", label="validation")
    scores.set(ylabel=name)
    for axes in (losses, scores):
        axes.axvline(trained.best.number, color="C3", linestyle=":", label=f"kept: epoch {trained.best.number}")
        axes.set(xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
