"""The command line of `lstm-train`: a subcommand for each problem, and the function that makes the problem of its options.

The defaults of the network are read from `models.problems`, so what the help says is what a demonstration without
options does.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commands import version
from commands.parser import Parser, whole_number
from models import networks, problems
from models.forecasting import Forecast
from models.problems import Problem
from models.trainer import Plan


def parser() -> argparse.ArgumentParser:
    """The command line; the parsed options hold `problem`, a function from them to a `models.problems.Problem`."""
    root = Parser(prog="lstm-train", description="Trains an LSTM network and writes a run folder for lstm-export.")
    version.add_flag(root)
    subcommands = root.add_subparsers(metavar="PROBLEM", required=True)
    vowels = subcommands.add_parser(
        "vowels",
        help="tell nine speakers apart by two vowels (data included, some seconds)",
        description="Trains a classifier of the Japanese vowels: 12 features, 7 to 29 steps, 9 speakers.",
    )
    vowels.set_defaults(problem=lambda _: problems.vowels())
    weather = subcommands.add_parser(
        "weather",
        help="foretell the temperature one and three days ahead (data included, some seconds)",
        description="Trains a forecast of Seattle's daily highest temperature, said after every day; 2015 is the test.",
    )
    weather.set_defaults(problem=lambda _: problems.weather())
    csv = subcommands.add_parser(
        "csv",
        help="foretell a column of your CSV file",
        description="Trains a forecast from a CSV file: a header, then one row a step, oldest first, equally far apart. "
        "The newest rows are the test, those before them decide for how long to learn; what is kept has learnt for so "
        "long from everything before the test.",
    )
    _add_csv_options(csv)
    ts = subcommands.add_parser(
        "ts",
        help="classify the sequences of your .ts files",
        description="Trains a classifier from two .ts files of the UEA & UCR archive; lengths may differ.",
    )
    _add_ts_options(ts)
    for command in (vowels, weather, csv, ts):
        _add_run_options(command)
    return root


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--framework", choices=networks.FRAMEWORKS, required=True, help="what to train in")
    command.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder to write")
    command.add_argument("--seed", type=whole_number(0), default=0, help="same seed, same weights (default 0)")
    command.add_argument("--epochs", type=whole_number(1), help="at most so many (the default belongs to the problem)")
    command.add_argument("--overwrite", action="store_true", help="replace a finished run in RUN")


def _add_csv_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help="the CSV file, columns parted by commas")
    command.add_argument("--features", type=_names, required=True, metavar="A,B,...", help="the columns that are read")
    command.add_argument("--target", required=True, metavar="COLUMN", help="the column that is foretold")
    command.add_argument("--time", required=True, metavar="COLUMN", help="the column of the time: dates or numbers")
    command.add_argument(
        "--horizon", type=_horizons, default=(1,), metavar="N,...", help="how many rows ahead (default 1)"
    )
    command.add_argument(
        "--day-of-year",
        action="store_true",
        help="let the network know the season: sine and cosine of the day of the year are two more features",
    )
    command.add_argument(
        "--history",
        type=whole_number(1),
        default=Forecast.history,
        metavar="ROWS",
        help="rows in a window that is learnt from (default %(default)s)",
    )
    for name, part in (
        ("validation", "decides when to stop, the rows before the test"),
        ("test", "is for the scores, the newest rows"),
    ):
        command.add_argument(
            f"--{name}-share",
            type=_number,
            default=getattr(Forecast, name),
            metavar="S",
            help=f"how much of the file {part} (default %(default)s)",
        )
    _add_network_options(command, problems.FORECASTER, problems.FORECASTER_PLAN)
    command.set_defaults(problem=_csv)


def _add_ts_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("training_file", type=Path, metavar="TRAIN.ts", help="what is learnt from")
    command.add_argument("test_file", type=Path, metavar="TEST.ts", help="what it is tested on")
    command.add_argument(
        "--validation-share",
        dest="validation",
        type=_number,
        default=problems.CLASSIFIER_PLAN.validation,
        metavar="S",
        help="the share of the training cases that decides when to stop (default %(default)s)",
    )
    _add_network_options(command, problems.CLASSIFIER, problems.CLASSIFIER_PLAN)
    command.set_defaults(problem=_ts)


def _add_network_options(command: argparse.ArgumentParser, network: Mapping[str, Any], plan: Plan) -> None:
    for name, meaning in (("layers", "LSTM layers"), ("hidden", "units in each layer")):
        command.add_argument(
            f"--{name}", type=whole_number(1), default=network[name], help=f"{meaning} (default %(default)s)"
        )
    if "bidirectional" in network:
        command.add_argument("--bidirectional", action="store_true", help="read the sequences from both ends")
    command.add_argument(
        "--dropout",
        type=_number,
        default=network["dropout"],
        help="share left out while learning (default %(default)s)",
    )
    command.add_argument(
        "--noise",
        type=_number,
        default=plan.noise,
        help="added to the features while learning, in standard deviations of each (default %(default)s)",
    )


def _csv(options: argparse.Namespace) -> Problem:
    asked = Forecast(
        features=options.features,
        target=options.target,
        horizons=options.horizon,
        day_of_year=options.day_of_year,
        history=options.history,
        validation=options.validation_share,
        test=options.test_share,
    )
    network = {name: getattr(options, name) for name in problems.FORECASTER}
    return problems.forecast(options.file, asked, options.time, network, problems.FORECASTER_PLAN)


def _ts(options: argparse.Namespace) -> Problem:
    network = {name: getattr(options, name) for name in problems.CLASSIFIER}
    return problems.classification(options.training_file, options.test_file, network, problems.CLASSIFIER_PLAN)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _horizons(text: str) -> tuple[int, ...]:
    return tuple(map(whole_number(1), _names(text)))
