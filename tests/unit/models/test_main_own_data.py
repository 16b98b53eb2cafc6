"""What a new user does: writes a file, trains on it, reads what it reached; and the sentence for each thing that is wrong."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models import __main__ as cli
from models import networks, problems
from models.arguments import parser
from models.checkpoint import Checkpoint
from models.networks import FRAMEWORKS

CSV = "csv {folder}/tank.csv --features level,inflow --target level --time minute --horizon 1,2 --history 8"
TS = "ts {folder}/beat_TRAIN.ts {folder}/beat_TEST.ts --hidden 8"


def lstm_train(command: str, *more: str) -> int:
    """The exit code of `lstm-train`, however it ends."""
    try:
        return cli.main([*shlex.split(command), *more])
    except SystemExit as ended:
        return int(ended.code or 0)


def write_csv(folder: Path, rows: int = 160) -> Path:
    """The level of a tank is what has flowed in: the next one is the sum of two columns."""
    rng = np.random.default_rng(0)
    inflow = rng.normal(0, 1, rows)
    level = 20 + np.concatenate([[0], inflow.cumsum()[:-1]])
    lines = [f"{minute * 5},{level[minute]:.4f},{inflow[minute]:.4f},ok" for minute in range(rows)]
    path = folder / "tank.csv"
    path.write_text("minute,level,inflow,state\n" + "\n".join(lines) + "\n")
    return path


def write_ts(folder: Path) -> None:
    """Two classes of 3 to 7 steps, told apart by the sign of their mean; the test part names them in another order."""
    rng = np.random.default_rng(0)
    for part, labels in (("TRAIN", ("fast", "slow")), ("TEST", ("slow", "fast"))):
        header = f"@problemName heart beat\n@univariate true\n@classLabel true {' '.join(labels)}\n@data\n"
        cases = []
        for case in range(40):
            label, sign = (("fast", 1), ("slow", -1))[case % 5 == 0]
            steps = rng.normal(2 * sign, 1, rng.integers(3, 8))
            cases.append(",".join(f"{step:.3f}" for step in steps) + f":{label}")
        (folder / f"beat_{part}.ts").write_text(header + "\n".join(cases) + "\n")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_forecast_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], framework: str) -> None:
    write_csv(tmp_path)
    run = tmp_path / "run"
    command = f"{CSV.format(folder=tmp_path)} --hidden 8 --dropout 0 --epochs 3 --framework {framework} --out {run}"
    assert lstm_train(command) == 0
    printed = capsys.readouterr().out
    checkpoint = Checkpoint.load(run)
    facts = checkpoint.training
    assert (checkpoint.config.features, checkpoint.config.outputs, checkpoint.config.hidden) == (2, 2, 8)
    assert checkpoint.config.streamable
    assert facts["problem"] == "tank"
    assert [column["name"] for column in facts["data"]["features"]] == ["level", "inflow"]
    assert [output["rows_ahead"] for output in facts["data"]["outputs"]] == [1, 2]
    assert facts["data"]["time"] == {"column": "minute", "step": 5.0, "unit": "of the column"}
    assert facts["scores"].keys() >= {"test_mean_absolute_error", "baselines"}
    assert facts["scores"]["baselines"].keys() == {"persistence"}
    level = np.array([float(line.split(",")[1]) for line in (tmp_path / "tank.csv").read_text().splitlines()[1:]])
    steps = np.abs(np.diff(level[136:]))  # the newest 15 % of 160 rows
    assert facts["scores"]["baselines"]["persistence"]["level+1"] == pytest.approx(steps.mean(), rel=1e-5)
    assert "level+1" in printed
    assert "persistence" in printed
    assert printed.splitlines()[-1] == f"next: lstm-export checkpoint {run} --name tank --format onnx"
    sample = checkpoint.samples[-1]
    assert networks.load(checkpoint).predict({"x": sample[None]})["y"].shape == (1, 8, 2)


def test_what_the_next_row_follows_from_is_learnt(tmp_path: Path) -> None:
    write_csv(tmp_path, 400)
    command = f"{CSV.format(folder=tmp_path)} --dropout 0 --framework torch --out {tmp_path}/run"
    assert lstm_train(command) == 0
    scores = json.loads((tmp_path / "run" / "training.json").read_text())["scores"]
    assert scores["test_mean_absolute_error"]["level+1"] < 0.8 * scores["baselines"]["persistence"]["level+1"]


@pytest.mark.parametrize("framework", ["torch", pytest.param("keras", marks=pytest.mark.slow)])
def test_a_classifier_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str], framework: str) -> None:
    write_ts(tmp_path)
    command = f"{TS.format(folder=tmp_path)} --bidirectional --epochs 60 --framework {framework} --out {tmp_path}/run"
    assert lstm_train(command) == 0
    checkpoint = Checkpoint.load(tmp_path / "run")
    assert checkpoint.labels == ("fast", "slow")
    assert checkpoint.config.bidirectional
    scores = checkpoint.training["scores"]
    assert scores["baselines"] == {"majority class": 0.8}
    assert scores["test_accuracy"] > 0.9
    assert len({len(sample) for sample in checkpoint.samples}) > 1
    printed = capsys.readouterr().out
    assert f"test accuracy {scores['test_accuracy']:.4f} (majority class 0.8000)" in printed
    assert "--name heart_beat" in printed


def test_a_network_that_loses_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path)
    write_ts(tmp_path)
    for command in (f"{CSV} --epochs 1 --noise 5", f"{TS} --epochs 1 --noise 50"):
        lstm_train(f"{command.format(folder=tmp_path)} --framework torch --out {tmp_path}/run --overwrite")
        assert "the network is no better than" in capsys.readouterr().out


def _edit(name: str, find: str, replacement: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        text = path.read_text()
        assert find in text
        path.write_text(text.replace(find, replacement, 1))

    return edit


def _nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("damage", "command", "sentence"),
    [
        (
            _edit("tank.csv", "\n10,", "\nten,"),
            CSV,
            "{folder}/tank.csv:4: column 'minute' is 'ten', which is no number",
        ),
        (_edit("tank.csv", "\n10,", "\n10,lots"), CSV, "{folder}/tank.csv:4: column 'level' is 'lots"),
        (_edit("tank.csv", "\n10,", "\n10,,"), CSV, "{folder}/tank.csv:4: the row has 5 cells; the header has 4"),
        (
            _edit("tank.csv", "\n10,", "\n5,"),
            CSV,
            "{folder}/tank.csv:4: column 'minute' is '5', as in the row before it",
        ),
        (
            _edit("tank.csv", "\n10,", "\n1,"),
            CSV,
            "{folder}/tank.csv:4: column 'minute' is '1', before the '5' above it",
        ),
        (_edit("tank.csv", "\n10,", "\n12,"), CSV, "{folder}/tank.csv:4: column 'minute' is '12', 7 after the '5'"),
        (_edit("tank.csv", "inflow", "outflow"), CSV, "{folder}/tank.csv:1: the column 'inflow' is not there"),
        (_nothing, CSV.replace("minute", "second"), "{folder}/tank.csv:1: the column 'second' is not there"),
        (_nothing, CSV.replace("level,inflow", "level,state"), ":2: column 'state' is 'ok', which is no number"),
        (
            _nothing,
            CSV.replace("level,inflow", "level,level"),
            "features are 'level,level'; at least one, each of them",
        ),
        (_nothing, CSV.replace("1,2", "1,1"), "horizons are '1,1'"),
        (_nothing, CSV + " --day-of-year", "{folder}/tank.csv: the times are numbers (0 ...); the day of year needs"),
        (_nothing, CSV.replace("history 8", "history 200"), "{folder}/tank.csv: the training part has 112 of 160 rows"),
        (_nothing, CSV + " --test-share 0.9", "leave nothing to learn from; together they must be below 1"),
        (_nothing, CSV + " --test-share 1.5", "the test share is 1.5; it must be between 0 and 1"),
        (_nothing, CSV + " --dropout 1", "dropout is 1.0; it must be in [0, 1)"),
        (_nothing, CSV + " --noise -1", "noise is -1.0; it must not be negative"),
        (_nothing, CSV.replace("tank", "tnak"), "cannot read {folder}/tnak.csv: No such file or directory"),
        (_nothing, CSV.replace("/tank.csv", ""), "cannot read {folder}: Is a directory"),
        (_edit("beat_TRAIN.ts", ":fast", ":fats"), TS, "{folder}/beat_TRAIN.ts:6: the label is 'fats'; @classLabel"),
        (
            _edit("beat_TEST.ts", "true slow fast", "true slow fast dead"),
            TS,
            "{folder}/beat_TEST.ts: names the classes slow, fast, dead; {folder}/beat_TRAIN.ts names fast, slow",
        ),
        (
            lambda folder: (folder / "beat_TRAIN.ts").write_text(
                "@classLabel true fast slow\n@data\n1:fast\n2:fast\n3:slow"
            ),
            TS,
            "{folder}/beat_TRAIN.ts: the class 'slow' has 1 cases; at least 2 are needed",
        ),
        (
            lambda folder: (folder / "beat_TEST.ts").write_text("@classLabel true fast slow\n@data\n1:2:fast\n"),
            TS,
            "{folder}/beat_TEST.ts: has 2 channels; {folder}/beat_TRAIN.ts has 1",
        ),
        (_nothing, TS + " --validation-share 1", "validation is 1.0; it must be between 0 and 1"),
        (_nothing, TS.replace("TRAIN", "TRIAN"), "cannot read {folder}/beat_TRIAN.ts: No such file or directory"),
    ],
)
def test_what_is_wrong_gets_one_sentence_and_no_run(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    command: str,
    sentence: str,
) -> None:
    write_csv(tmp_path)
    write_ts(tmp_path)
    damage(tmp_path)
    assert lstm_train(command.format(folder=tmp_path), "--framework", "torch", "--out", str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert sentence.format(folder=tmp_path) in error
    assert error.startswith("lstm-train")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_options_of_the_plan_reach_it(tmp_path: Path) -> None:
    write_ts(tmp_path)
    command = f"{TS.format(folder=tmp_path)} --framework torch --out x --epochs 7 --noise 0.25 --seed 3 --layers 2"
    problem = cli.problem_of(parser().parse_args(shlex.split(command)))
    assert problem.plan == dataclasses.replace(problems.CLASSIFIER_PLAN, epochs=7, noise=0.25, seed=3)
    assert (problem.config.layers, problem.config.hidden, problem.config.dropout) == (2, 8, 0.4)
