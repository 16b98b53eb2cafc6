"""Whether the demonstration learns as well as it claims: three seeds in each framework, and a verdict.

    python -m models.scores --out runs/scores

One fact that surprises: a run that is already there is not trained again, as long as network, plan and data are still
those of the problem; so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from models import networks, problems
from models.checkpoint import Checkpoint, CheckpointError
from models.problems import Problem

SEEDS = (0, 1, 2)
LEAST_MEDIAN = 0.95
LEAST = 0.93


def verdict(accuracies: Mapping[str, Sequence[float]]) -> list[str]:
    """One sentence for each framework whose test accuracies miss the target; empty when all reach it."""
    misses = []
    for framework, values in accuracies.items():
        if median(values) < LEAST_MEDIAN:
            misses.append(f"{framework}: the median {median(values):.4f} is below {LEAST_MEDIAN}")
        if min(values) < LEAST:
            misses.append(f"{framework}: the minimum {min(values):.4f} is below {LEAST}")
    return misses


def table(checkpoints: Mapping[str, Sequence[Checkpoint]]) -> str:
    """Test accuracies as a Markdown table, one row for each framework."""
    lines = [
        "| framework | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | median | minimum | seconds a run |",
        "|---" * (len(SEEDS) + 4) + "|",
    ]
    for framework, runs in checkpoints.items():
        values = [_accuracy(run) for run in runs]
        seconds = median(run.training["seconds"] for run in runs)
        cells = [f"{value:.4f}" for value in (*values, median(values), min(values))]
        lines.append(f"| {framework} | " + " | ".join(cells) + f" | {seconds:.0f} |")
    return "\n".join(lines)


def _accuracy(checkpoint: Checkpoint) -> float:
    return float(checkpoint.training["scores"]["test_accuracy"])


def finished(problem: Problem, folder: Path) -> Checkpoint | None:
    """The run in `folder`, if it is finished and is what training `problem` now would be."""
    try:
        checkpoint = Checkpoint.load(folder)
    except CheckpointError:
        return None  # not there, cut off, or of another time: to be made
    facts = checkpoint.training
    same = (checkpoint.config, facts.get("plan"), facts.get("data")) == (
        problem.config,
        dataclasses.asdict(problem.plan),
        problem.data,
    )
    return checkpoint if same else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 when the target is reached in every framework, 1 when it is missed."""
    parser = argparse.ArgumentParser(prog="python -m models.scores", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the runs are kept")
    options = parser.parse_args(arguments)
    networks.silence_tensorflow()
    from models import runs
    from models.progress import Progress

    vowels = problems.vowels()
    checkpoints: dict[str, list[Checkpoint]] = {}
    for framework in networks.FRAMEWORKS:
        for seed in SEEDS:
            problem = dataclasses.replace(vowels, plan=dataclasses.replace(vowels.plan, seed=seed))
            folder = options.out / f"vowels-{framework}-{seed}"
            checkpoint = finished(problem, folder)
            if checkpoint is None:
                with Progress(problem.title(framework), problem.plan.epochs, sys.stderr) as progress:
                    checkpoint = runs.make(problem, framework, folder, progress)
            checkpoints.setdefault(framework, []).append(checkpoint)
    print(f"Test accuracy on {vowels.data['name']}, {len(vowels.test)} utterances:\n\n{table(checkpoints)}\n")
    misses = verdict({framework: [_accuracy(run) for run in made] for framework, made in checkpoints.items()})
    print("\n".join(misses) or f"Every median is at least {LEAST_MEDIAN}, no run is below {LEAST}.")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
