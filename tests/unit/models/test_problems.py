"""What becomes of a user's files: the demonstrations go the same way, and names and samples are chosen to be of use."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import numpy as np
import pytest

from models import problems
from models.__main__ import problem_of
from models.arguments import parser
from models.forecasting import Forecast
from models.ts_files import TSFormatError

NETWORK = {"layers": 1, "hidden": 4, "dropout": 0.0}
CASES = "@classLabel true up down\n@data\n1,2:up\n1,3,4:up\n2,1:down\n3:down\n"


@pytest.mark.parametrize("problem", ["weather", "vowels"])
def test_the_demonstrations_are_the_users_own_path(problem: str) -> None:
    data = Path(problems.__file__).parent / "data"
    commands = {
        "weather": f"csv {data}/seattle-weather.csv --features precipitation,temp_max,temp_min,wind --day-of-year "
        "--target temp_max --time date --horizon 1,3 --validation-share 0.25 --test-share 0.25",
        "vowels": f"ts {data}/JapaneseVowels_TRAIN.ts {data}/JapaneseVowels_TEST.ts",
    }
    made = []
    for command in (problem, commands[problem]):
        options = parser().parse_args([*shlex.split(command), "--framework", "torch", "--out", "x"])
        made.append(problem_of(options))
    (demonstration, own) = made
    assert (demonstration.config, demonstration.plan) == (own.config, own.plan)
    for part in ("training", "validation", "refit", "test"):
        one, other = getattr(demonstration, part), getattr(own, part)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(np.concatenate(list(one.sequences)), np.concatenate(list(other.sequences)))


def table(folder: Path, name: str, rows: int = 40) -> Path:
    """A CSV file of one column that counts, an hour apart."""
    path = folder / name
    path.write_text("hour,load\n" + "".join(f"{row},{row}\n" for row in range(rows)))
    return path


@pytest.mark.parametrize(
    ("file", "name"),
    [("load.csv", "load"), ("my load (2024).csv", "my_load_2024"), ("äöü.csv", "model"), ("-.load.csv", "load")],
)
def test_a_problem_is_called_as_a_model_may_be(file: str, name: str, tmp_path: Path) -> None:
    asked = Forecast(features=("load",), target="load", horizons=(1,), history=4)
    made = problems.forecast(table(tmp_path, file), asked, "hour", NETWORK, problems.FORECASTER_PLAN)
    assert made.name == name
    assert made.title("torch") == f"{name} (torch, seed 0)"


def test_a_forecast_knows_its_columns_and_its_file(tmp_path: Path) -> None:
    asked = Forecast(features=("load",), target="load", horizons=(1, 3), history=4)
    file = table(tmp_path, "load.csv")
    made = problems.forecast(file, asked, "hour", NETWORK, problems.FORECASTER_PLAN, units={"load": "kW"})
    assert made.data["sha256"] == {"load.csv": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert made.data["time"] == {"column": "hour", "step": 1.0, "unit": "of the column"}
    assert made.data["features"] == [{"name": "load", "unit": "kW"}]
    assert made.data["outputs"] == [
        {"name": "load+1", "rows_ahead": 1, "unit": "kW"},
        {"name": "load+3", "rows_ahead": 3, "unit": "kW"},
    ]
    assert (made.config.head, made.config.features, made.config.outputs) == ("values_per_step", 1, 2)


def test_a_classifier_has_the_classes_of_the_training_file(tmp_path: Path) -> None:
    training, test = tmp_path / "a_TRAIN.ts", tmp_path / "a_TEST.ts"
    training.write_text(CASES)
    test.write_text("@classLabel true down up\n@data\n5:up\n6,7:down\n")
    made = problems.classification(training, test, NETWORK, problems.CLASSIFIER_PLAN)
    assert made.outputs == ("up", "down")
    assert np.asarray(made.test.targets).tolist() == [0, 1]  # by the training file's order, not by its own
    assert [len(sample) for sample in made.samples] == [1, 2]
    np.testing.assert_array_equal(made.baselines["majority class"], [[1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("training", "test", "sentence"),
    [
        (
            CASES,
            CASES.replace("true up down", "true up down left"),
            "names the classes up, down, left; .* names up, down",
        ),
        (CASES, "@classLabel true up down\n@data\n1:2:up\n", "has 2 channels; .* has 1"),
        (CASES.replace("2,1:down\n", ""), CASES, "the class 'down' has 1 cases; at least 2 are needed"),
    ],
)
def test_files_that_do_not_fit_each_other(training: str, test: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_text(training)
    (tmp_path / "b.ts").write_text(test)
    with pytest.raises(TSFormatError, match=sentence):
        problems.classification(tmp_path / "a.ts", tmp_path / "b.ts", NETWORK, problems.CLASSIFIER_PLAN)
