"""The command line of `lstm-train`: what each problem is asked with, and what is meant where nothing is said."""

from __future__ import annotations

import shlex

import pytest

from models import problems
from models.arguments import parser
from models.forecasting import Forecast

CSV = "csv a.csv --features a,b --target b --time t"
RUN = "--framework torch --out x"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (f"vowels {RUN}", {"seed": 0, "epochs": None, "overwrite": False}),
        (f"{CSV} {RUN}", {"features": ("a", "b"), "horizon": (1,), "history": Forecast.history, "day_of_year": False}),
        (f"{CSV} --horizon '1, 7' {RUN}", {"horizon": (1, 7)}),
        (f"{CSV} {RUN}", {"hidden": problems.FORECASTER["hidden"], "noise": problems.FORECASTER_PLAN.noise}),
        (f"ts a b {RUN}", {"hidden": problems.CLASSIFIER["hidden"], "validation": problems.CLASSIFIER_PLAN.validation}),
        (f"ts a b --bidirectional --layers 2 {RUN}", {"bidirectional": True, "layers": 2}),
        (f"weather --epochs 3 --seed 4294967 {RUN}", {"epochs": 3, "seed": 4294967}),
    ],
)
def test_what_is_meant(command: str, expected: dict[str, object]) -> None:
    options = vars(parser().parse_args(shlex.split(command)))
    assert {name: options[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("", "lstm-train: the following arguments are required: PROBLEM"),
        (f"{CSV} --bidirectional {RUN}", "lstm-train: unrecognized arguments: --bidirectional"),  # it could not stream
        (f"{CSV} --horizon 0 {RUN}", "lstm-train csv: argument --horizon: '0' is not a whole number from 1"),
        (f"{CSV} --test-share half {RUN}", "lstm-train csv: argument --test-share: 'half' is not a number"),
        (f"{CSV} --horizon 1,x {RUN}", "lstm-train csv: argument --horizon: 'x' is not a whole number from 1"),
        (f"ts a b --dropout much {RUN}", "lstm-train ts: argument --dropout: 'much' is not a number"),
        (f"ts a b --hidden 0 {RUN}", "lstm-train ts: argument --hidden: '0' is not a whole number from 1"),
        (f"vowels --seed -1 {RUN}", "lstm-train vowels: argument --seed: '-1' is not a whole number from 0"),
        ("ts a b --framework torch", "lstm-train ts: the following arguments are required: --out"),
    ],
)
def test_what_is_refused(command: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(shlex.split(command))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence)
    assert said.count("\n") == 1
