"""What a finished training says for itself: its scores beside those of answers that need no network.

A network that loses against a baseline is no error; it is said in plain words, for then the baseline is what should be
served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.checkpoint import Checkpoint

ERRORS = "test_mean_absolute_error"


def summarise(title: str, checkpoint: Checkpoint) -> str:
    """A line for a classification; for values a small table, one row for the network and one for each baseline."""
    facts = checkpoint.training
    scores: Mapping[str, Any] = facts["scores"]
    effort = f"after {facts['epochs']} epochs in {facts['seconds']:.0f} s"
    if checkpoint.config.head == "classification":
        others = ", ".join(f"{name} {score:.4f}" for name, score in scores["baselines"].items())
        beaten = [name for name, score in scores["baselines"].items() if score >= scores["test_accuracy"]]
        lines = [f"{title}: test accuracy {scores['test_accuracy']:.4f} ({others}) {effort}"]
        return "\n".join(lines + [f"the network is no better than {name}" for name in beaten])
    outputs: Mapping[str, float] = scores[ERRORS]
    width = max(map(len, outputs)) + 3
    lines = [f"{title}: mean absolute error on the test part, {effort}"]
    lines.append(f"  {'':<14}" + "".join(f"{output:>{width}}" for output in outputs))
    for name, errors in {"network": outputs, **scores["baselines"]}.items():
        lines.append(f"  {name:<14}" + "".join(f"{errors[output]:>{width}.4g}" for output in outputs))
    lines += [
        f"at {output} the network is no better than {name}"
        for name, errors in scores["baselines"].items()
        for output in outputs
        if errors[output] <= outputs[output]
    ]
    return "\n".join(lines)
