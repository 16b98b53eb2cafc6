"""The verdict on the demonstration: medians, minima, and runs that need not be repeated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models import problems, scores
from models.checkpoint import Checkpoint, expected_shapes


def checkpoint(accuracy: float, seed: int = 0) -> Checkpoint:
    """A run of the vowels as far as the scores look at it; its weights are ones."""
    problem = problems.vowels()
    plan = dataclasses.replace(problem.plan, seed=seed)
    return Checkpoint(
        config=problem.config,
        weights={name: np.ones(shape, np.float32) for name, shape in expected_shapes(problem.config).items()},
        framework="torch",
        training={
            "scores": {"test_accuracy": accuracy},
            "seconds": 7.25,
            "plan": dataclasses.asdict(plan),
            "data": problem.data,
        },
    )


@pytest.mark.parametrize(
    ("accuracies", "misses"),
    [
        ([0.96, 0.95, 0.93], []),
        ([0.96, 0.949, 0.94], ["torch: the median 0.9490 is below 0.95"]),
        ([0.97, 0.96, 0.929], ["torch: the minimum 0.9290 is below 0.93"]),
        ([0.5, 0.5, 0.5], ["torch: the median 0.5000 is below 0.95", "torch: the minimum 0.5000 is below 0.93"]),
    ],
)
def test_verdict(accuracies: list[float], misses: list[str]) -> None:
    assert scores.verdict({"keras": [0.99, 0.99, 0.99], "torch": accuracies}) == misses


def test_table() -> None:
    rows = scores.table({"torch": [checkpoint(0.95), checkpoint(0.97), checkpoint(0.96)]}).splitlines()
    assert rows[0] == "| framework | seed 0 | seed 1 | seed 2 | median | minimum | seconds a run |"
    assert rows[2] == "| torch | 0.9500 | 0.9700 | 0.9600 | 0.9600 | 0.9500 | 7 |"


@pytest.mark.parametrize(("accuracy", "code"), [(0.96, 0), (0.94, 1)])
def test_finished_runs_are_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], accuracy: float, code: int
) -> None:
    for framework in ("torch", "keras"):
        for seed in scores.SEEDS:
            checkpoint(accuracy, seed).save(tmp_path / f"vowels-{framework}-{seed}")
    assert scores.main(["--out", str(tmp_path)]) == code
    assert f"| {accuracy:.4f} |" in capsys.readouterr().out


def test_a_run_of_another_plan_or_none_is_to_be_made(tmp_path: Path) -> None:
    problem = problems.vowels()
    assert scores.finished(problem, tmp_path) is None
    checkpoint(0.96, seed=problem.plan.seed).save(tmp_path)
    assert scores.finished(problem, tmp_path) is not None
    other = dataclasses.replace(problem, plan=dataclasses.replace(problem.plan, rows=problem.plan.rows + 1))
    assert scores.finished(other, tmp_path) is None
