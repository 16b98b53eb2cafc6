"""`lstm-train`: trains a demonstration network and leaves a run folder that `lstm-export` reads.

    lstm-train vowels --framework torch --out runs/vowels-torch

One fact that surprises: a usage error is one sentence without the usage text, because the sentence already says what
is allowed.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from models import networks, problems
from models.training import TrainingError

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C has ended


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line; each problem is one subcommand."""
    root = _Parser(prog="lstm-train", description="Trains an LSTM network and writes a run folder for lstm-export.")
    subcommands = root.add_subparsers(dest="problem", metavar="PROBLEM", required=True)
    vowels = subcommands.add_parser(
        "vowels",
        help="tell nine speakers apart by two vowels (data included, about half a minute)",
        description="Trains a classifier of the Japanese vowels: 12 features, 7 to 29 steps, 9 speakers.",
    )
    _add_run_options(vowels)
    return root


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--framework", choices=networks.FRAMEWORKS, required=True, help="what to train in")
    command.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder to write")
    command.add_argument("--seed", type=_count_from(0), default=0, help="same seed, same weights (default 0)")
    command.add_argument("--epochs", type=_count_from(1), help="at most so many (the default belongs to the problem)")
    command.add_argument("--overwrite", action="store_true", help="replace a finished run in RUN")


def _count_from(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {2**32 - 1}")
        return int(text)

    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns 0, 1 when the training failed, 2 for a refused request, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    networks.silence_tensorflow()
    try:
        return _train(options)
    except ModuleNotFoundError as error:
        extra = {"keras": "tensorflow"}.get(options.framework, options.framework)
        print(f"lstm-train: {error.name} is missing; pip install 'lstm-serving[train,{extra}]'", file=sys.stderr)
        return 1
    except (TrainingError, OSError) as error:
        print(f"lstm-train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"lstm-train: interrupted; no finished run was written to {options.out}", file=sys.stderr)
        return INTERRUPTED


def _train(options: argparse.Namespace) -> int:
    from models import runs
    from models.progress import Progress

    try:
        runs.check_folder(options.out, options.overwrite)
    except runs.RunError as error:
        print(f"lstm-train: {error}", file=sys.stderr)
        return 2
    problem = getattr(problems, options.problem)()
    plan = dataclasses.replace(problem.plan, seed=options.seed, epochs=options.epochs or problem.plan.epochs)
    problem = dataclasses.replace(problem, plan=plan)
    title = problem.title(options.framework)
    with Progress(title, plan.epochs, sys.stderr) as progress:
        checkpoint = runs.make(problem, options.framework, options.out, progress)
    facts = checkpoint.training
    accuracy = facts["scores"]["test_accuracy"]
    print(
        f"{title}: test accuracy {accuracy:.4f} after {facts['epochs']} epochs in {facts['seconds']:.0f} s; "
        f"next: lstm-export checkpoint {shlex.quote(str(options.out))} --name {problem.name} --format onnx"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
