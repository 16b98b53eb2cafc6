"""The verdict on the demonstrations: medians, minima, baselines, and runs that need not be repeated."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import problems, scores
from models.checkpoint import Checkpoint, expected_shapes
from models.problems import Problem

BASELINES = {
    "persistence": {"temp_max+1": 2.0, "temp_max+3": 4.0},
    "climatology": {"temp_max+1": 3.0, "temp_max+3": 3.0},
}


def checkpoint(problem: Problem, found: dict[str, Any], seed: int = 0) -> Checkpoint:
    """A run of `problem` as far as the scores look at it; its weights are ones."""
    classes = problem.config.head == "classification"
    return Checkpoint(
        config=problem.config,
        weights={name: np.ones(shape, np.float32) for name, shape in expected_shapes(problem.config).items()},
        framework="torch",
        training={
            "scores": {"baselines": {"majority class": 0.1} if classes else BASELINES, **found},
            "seconds": 7.25,
            "plan": dataclasses.asdict(dataclasses.replace(problem.plan, seed=seed)),
            "data": problem.data,
        },
    )


def vowels(accuracy: float, seed: int = 0) -> Checkpoint:
    return checkpoint(problems.vowels(), {"test_accuracy": accuracy}, seed)


def weather(near: float, far: float, seed: int = 0) -> Checkpoint:
    errors = {"temp_max+1": near, "temp_max+3": far}
    return checkpoint(problems.weather(), {"test_mean_absolute_error": errors}, seed)


@pytest.mark.parametrize(
    ("accuracies", "misses"),
    [
        ([0.96, 0.95, 0.93], []),
        ([0.96, 0.949, 0.94], ["torch: the median 0.9490 is below 0.95"]),
        ([0.97, 0.96, 0.929], ["torch: the minimum 0.9290 is below 0.93"]),
        ([0.5, 0.5, 0.5], ["torch: the median 0.5000 is below 0.95", "torch: the minimum 0.5000 is below 0.93"]),
    ],
)
def test_verdict_on_accuracies(accuracies: list[float], misses: list[str]) -> None:
    assert scores.accuracy_misses({"keras": [vowels(0.99)] * 3, "torch": list(map(vowels, accuracies))}) == misses


@pytest.mark.parametrize(
    ("near", "far", "misses"),
    [
        ([1.8, 1.9, 2.5], [2.8, 2.8, 9], []),
        (
            [1.8, 1.91, 2.5],
            [2, 2, 2],
            ["torch, temp_max+1: the median 1.910 is above 1.900, which is 95% of persistence"],
        ),
        (
            [1, 1, 1],
            [2, 2.9, 2.9],
            ["torch, temp_max+3: the median 2.900 is above 2.850, which is 95% of climatology"],
        ),
    ],
)
def test_the_better_baseline_is_the_one_to_beat(near: list[float], far: list[float], misses: list[str]) -> None:
    assert scores.error_misses({"torch": [weather(*errors) for errors in zip(near, far, strict=True)]}) == misses


def test_tables() -> None:
    rows = scores.accuracy_table({"torch": [vowels(0.95), vowels(0.97), vowels(0.96)]}).splitlines()
    assert rows[0] == "| framework | seed 0 | seed 1 | seed 2 | median | minimum | seconds a run |"
    assert rows[2] == "| torch | 0.9500 | 0.9700 | 0.9600 | 0.9600 | 0.9500 | 7 |"
    rows = scores.error_table({"keras": [weather(1.8, 2.0), weather(1.6, 2.0), weather(1.5, 2.0)]}).splitlines()
    assert rows[0].startswith("| framework | output | seed 0 | seed 1 | seed 2 | median | persistence | climatology |")
    assert rows[2] == "| keras | temp_max+1 | 1.800 | 1.600 | 1.500 | 1.600 | 2.000 | 3.000 | 20.0% | 7 |"
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("accuracy", "near", "code"), [(0.96, 1.9, 0), (0.94, 1.9, 1), (0.96, 1.91, 1), (0.94, 1.91, 1)]
)
def test_finished_runs_are_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], accuracy: float, near: float, code: int
) -> None:
    for framework in ("torch", "keras"):
        for seed in scores.SEEDS:
            vowels(accuracy, seed).save(tmp_path / f"vowels-{framework}-{seed}")
            weather(near, 2.5, seed).save(tmp_path / f"weather-{framework}-{seed}")
    assert scores.main(["--out", str(tmp_path)]) == code
    printed = capsys.readouterr().out
    assert f"| {accuracy:.4f} |" in printed
    assert f"| {near:.3f} |" in printed


def test_a_run_of_another_plan_or_none_is_to_be_made(tmp_path: Path) -> None:
    problem = problems.vowels()
    assert scores.finished(problem, tmp_path) is None
    vowels(0.96, seed=problem.plan.seed).save(tmp_path)
    assert scores.finished(problem, tmp_path) is not None
    other = dataclasses.replace(problem, plan=dataclasses.replace(problem.plan, rows=problem.plan.rows + 1))
    assert scores.finished(other, tmp_path) is None
    assert scores.finished(dataclasses.replace(problem, baselines={}), tmp_path) is None
