"""Whether the demonstrations learn as well as they claim: three seeds in each framework, and a verdict.

    python -m models.scores --out runs/scores

A run that is already there is not trained again, as long as network, plan, data and baselines are still those of the
problem; so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from models import networks, problems
from models.checkpoint import Checkpoint, CheckpointError
from models.problems import Problem
from models.summary import ERRORS

SEEDS = (0, 1, 2)
LEAST_MEDIAN = 0.95
LEAST = 0.93
MOST_OF_BASELINE = 0.95  # of the better baseline's error, at every horizon

Runs = Mapping[str, Sequence[Checkpoint]]  # by framework, in the order of the seeds


def accuracy_misses(runs: Runs) -> list[str]:
    """One sentence for each framework whose test accuracies miss the target; empty when all reach it."""
    misses = []
    for framework, values in _accuracies(runs).items():
        if median(values) < LEAST_MEDIAN:
            misses.append(f"{framework}: the median {median(values):.4f} is below {LEAST_MEDIAN}")
        if min(values) < LEAST:
            misses.append(f"{framework}: the minimum {min(values):.4f} is below {LEAST}")
    return misses


def accuracy_table(runs: Runs) -> str:
    """Test accuracies as a Markdown table, one row for each framework."""
    rows = [
        [framework, *(f"{value:.4f}" for value in (*values, median(values), min(values))), _seconds(runs[framework])]
        for framework, values in _accuracies(runs).items()
    ]
    return _markdown(["framework", *_seed_names(), "median", "minimum", "seconds a run"], rows)


def error_misses(runs: Runs) -> list[str]:
    """One sentence for each framework and output whose median error is too near to the better baseline's."""
    misses = []
    for framework, output, errors, baselines in _errors(runs):
        best = min(baselines, key=lambda name: baselines[name])
        most = MOST_OF_BASELINE * baselines[best]
        if median(errors) > most:
            misses.append(
                f"{framework}, {output}: the median {median(errors):.3f} is above {most:.3f}, "
                f"which is {MOST_OF_BASELINE:.0%} of {best}"
            )
    return misses


def error_table(runs: Runs) -> str:
    """Mean absolute errors as a Markdown table, one row for each framework and output."""
    rows: list[list[str]] = []
    names: list[str] = []
    for framework, output, errors, baselines in _errors(runs):
        names = list(baselines)
        below = 1 - median(errors) / min(baselines.values())
        numbers = [f"{value:.3f}" for value in (*errors, median(errors), *baselines.values())]
        rows.append([framework, output, *numbers, f"{below:.1%}", _seconds(runs[framework])])
    header = ["framework", "output", *_seed_names(), "median", *names, "below the better", "seconds a run"]
    return _markdown(header, rows)


def finished(problem: Problem, folder: Path) -> Checkpoint | None:
    """The run in `folder`, if it is finished and is what training `problem` now would be."""
    try:
        checkpoint = Checkpoint.load(folder)
    except CheckpointError:
        return None  # not there, cut off, or of another time: to be made
    facts = checkpoint.training
    baselines = facts.get("scores", {}).get("baselines", {}).keys()
    same = (checkpoint.config, facts.get("plan"), facts.get("data"), baselines) == (
        problem.config,
        dataclasses.asdict(problem.plan),
        problem.data,
        problem.baselines.keys(),
    )
    return checkpoint if same else None


def make(problem: Problem, out: Path) -> Runs:
    """The runs of `problem` in every framework with every seed; those that are not in `out` are trained."""
    from models import runs
    from models.progress import Progress

    made: dict[str, list[Checkpoint]] = {framework: [] for framework in networks.FRAMEWORKS}
    for framework, checkpoints in made.items():
        for seed in SEEDS:
            seeded = dataclasses.replace(problem, plan=dataclasses.replace(problem.plan, seed=seed))
            folder = out / f"{problem.name}-{framework}-{seed}"
            checkpoint = finished(seeded, folder)
            if checkpoint is None:
                with Progress(seeded.title(framework), seeded.plan.epochs, sys.stderr) as progress:
                    checkpoint = runs.make(seeded, framework, folder, progress)
            checkpoints.append(checkpoint)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0 when every target is reached in every framework, 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="python -m models.scores", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the runs are kept")
    options = parser.parse_args(arguments)
    networks.silence_tensorflow()

    vowels, weather = problems.vowels(), problems.weather()
    made = make(vowels, options.out)
    misses = accuracy_misses(made)
    print(f"Test accuracy on {vowels.data['name']}, {len(vowels.test)} utterances:\n\n{accuracy_table(made)}\n")
    print("\n".join(misses) or f"Every median is at least {LEAST_MEDIAN}, no run is below {LEAST}.")

    made, days = make(weather, options.out), weather.data["parts"]["test"]
    print(f"\nMean absolute error in C on {weather.data['name']}, {days['first']} to {days['last']}:\n")
    print(f"{error_table(made)}\n")
    worse = error_misses(made)
    print("\n".join(worse) or f"Every median is at most {MOST_OF_BASELINE:.0%} of the better baseline.")
    return 1 if misses or worse else 0


def _accuracies(runs: Runs) -> dict[str, list[float]]:
    return {
        framework: [float(run.training["scores"]["test_accuracy"]) for run in made] for framework, made in runs.items()
    }


def _errors(runs: Runs) -> Iterable[tuple[str, str, list[float], dict[str, float]]]:
    """Framework, output, the errors of its runs, and those of each baseline, which are the same for every run."""
    for framework, made in runs.items():
        scores = [run.training["scores"] for run in made]
        for output in scores[0][ERRORS]:
            baselines = {name: errors[output] for name, errors in scores[0]["baselines"].items()}
            yield framework, output, [score[ERRORS][output] for score in scores], baselines


def _seconds(made: Sequence[Checkpoint]) -> str:
    return f"{median(run.training['seconds'] for run in made):.0f}"


def _seed_names() -> list[str]:
    return [f"seed {seed}" for seed in SEEDS]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
