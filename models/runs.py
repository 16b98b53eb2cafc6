"""A run folder: one training from its first epoch to a checkpoint that can be exported.

Nothing is written before the training is over, and `training.json` is written last of all. An interrupted run therefore
leaves what was there before, or a folder that `Checkpoint.load` refuses.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from models import networks, scoring
from models.checkpoint import Checkpoint
from models.learning_curve import draw
from models.problems import Problem
from models.training import Epoch, train


class RunError(ValueError):
    """A run folder that must not be written to; the message says why and what to do."""


def check_folder(folder: Path, overwrite: bool) -> None:
    """Raises `RunError` when `folder` is a file, or holds a finished run and `overwrite` is not set."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; a run needs a folder of its own")
    if (folder / "training.json").exists() and not overwrite:
        raise RunError(f"{folder} holds a finished run; choose another folder or add --overwrite")


def make(problem: Problem, framework: str, folder: Path, watch: Callable[[Epoch], None]) -> Checkpoint:
    """Trains `problem` in `framework`, tests the result once, and writes checkpoint and learning curve to `folder`.

    The validation scores are those of the best epoch, before a refit. `watch` is called after every epoch. Raises
    what `models.training.train` raises, and `OSError`.
    """
    if framework == "torch":
        import torch

        torch.set_num_threads(1)  # a network this small only waits for a second thread
    begin = time.perf_counter()
    trained = train(framework, problem.config, problem.training, problem.plan, watch, problem.validation, problem.refit)
    seconds = time.perf_counter() - begin

    network = networks.build(framework, problem.config)
    network.load_canonical(trained.weights)
    classes = problem.config.head == "classification"
    metric = "accuracy" if classes else "mean_absolute_error"
    checkpoint = Checkpoint(
        config=problem.config,
        weights=trained.weights,
        framework=framework,
        labels=problem.outputs if classes else (),
        samples=problem.samples,
        test=problem.test,
        training={
            "problem": problem.name,
            "scores": {
                f"test_{metric}": scoring.score(scoring.answers(network, problem.test), problem.test, problem.outputs),
                f"validation_{metric}": abs(trained.best.score),
                "validation_loss": trained.best.validation_loss,
                "baselines": {
                    name: scoring.score(y, problem.test, problem.outputs) for name, y in problem.baselines.items()
                },
            },
            "seed": problem.plan.seed,
            "epochs": len(trained.history),
            "best_epoch": trained.best.number,
            "seconds": round(seconds, 1),
            "versions": _versions(),
            "data": problem.data,
            "plan": dataclasses.asdict(problem.plan),
        },
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training.json").unlink(missing_ok=True)
    (folder / "learning_curve.png").write_bytes(draw(trained, problem.title(framework)))
    checkpoint.save(folder)
    return checkpoint


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("numpy", "torch", "keras", "tensorflow"):
        if name in sys.modules:
            versions[name] = str(sys.modules[name].__version__)
    return versions
