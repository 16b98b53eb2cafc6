"""`lstm-train`: trains a network on a demonstration or on your data and leaves a run folder that `lstm-export` reads.

    lstm-train vowels --framework torch --out runs/vowels-torch
    lstm-train csv sales.csv --features price,sold --target sold --time day --horizon 1,7 --framework torch --out RUN
    lstm-train ts GunPoint_TRAIN.ts GunPoint_TEST.ts --framework keras --out RUN

A usage error is one sentence without the usage text, because the sentence already says what is allowed. So is an error in
a file, which is told with its line.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence

from commands import extras
from commands.parser import INTERRUPTED, REFUSED
from models import networks
from models.arguments import parser
from models.config import ConfigError
from models.csv_files import CSVError
from models.examples import ExamplesError
from models.forecasting import ForecastError
from models.problems import Problem
from models.trainer import TrainingError
from models.ts_files import TSFormatError

REFUSALS = (CSVError, TSFormatError, ForecastError, ExamplesError, ConfigError, TrainingError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0, 1 when the training failed, 2 for a refused request, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    networks.silence_tensorflow()
    try:
        return _train(options)
    except ModuleNotFoundError as error:
        print(f"lstm-train: {extras.told(error)}", file=sys.stderr)
        return 1
    except (TrainingError, OSError) as error:
        print(f"lstm-train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"lstm-train: interrupted; no finished run was written to {options.out}", file=sys.stderr)
        return INTERRUPTED


def _train(options: argparse.Namespace) -> int:
    extras.require((*extras.TRAINING, *extras.FRAMEWORKS[options.framework]))
    from models import runs
    from models.progress import Progress
    from models.summary import summarise

    try:
        runs.check_folder(options.out, options.overwrite)
        problem = problem_of(options)
    except (runs.RunError, *REFUSALS) as error:
        print(f"lstm-train: {error}", file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(f"lstm-train: cannot read {error.filename}: {error.strerror}", file=sys.stderr)
        return REFUSED
    title = problem.title(options.framework)
    with Progress(title, problem.plan.epochs, sys.stderr) as progress:
        checkpoint = runs.make(problem, options.framework, options.out, progress)
    print(summarise(title, checkpoint))
    print(f"next: lstm-export checkpoint {shlex.quote(str(options.out))} --name {problem.name} --format onnx")
    return 0


def problem_of(options: argparse.Namespace) -> Problem:
    """The problem asked for, with the plan's numbers that were given replaced."""
    problem: Problem = options.problem(options)
    given = {name: getattr(options, name, None) for name in ("seed", "epochs", "noise", "validation")}
    plan = dataclasses.replace(problem.plan, **{name: value for name, value in given.items() if value is not None})
    return dataclasses.replace(problem, plan=plan)


if __name__ == "__main__":
    sys.exit(main())
