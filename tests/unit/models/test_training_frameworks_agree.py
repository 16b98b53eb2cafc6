"""Equal weights, batches and arithmetic give equal losses in both frameworks, step after step, up to rounding."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks import equal_training
from models import networks, problems
from models.examples import batches, scaling
from models.problems import Problem

STEPS = 20
CLOSENESS = 5e-5  # of the loss; measured 8.5e-6 (vowels) and 6.7e-6 (weather), growing with every step


def losses(framework: str, problem: Problem) -> list[float]:
    """The losses of the first steps without dropout and noise."""
    config = dataclasses.replace(problem.config, dropout=0.0)
    trainer = equal_training.start(framework, config, scaling(config, problem.training), problem.plan)
    made: list[float] = []
    rng = np.random.default_rng(0)
    while len(made) < STEPS:
        made += [trainer.step(batch) for batch in batches(problem.training, problem.plan.rows, rng)]
    return made[:STEPS]


@pytest.mark.parametrize("make", [problems.vowels, problems.weather])
def test_both_frameworks_learn_the_same(make):
    problem = make()
    torch, keras = (losses(framework, problem) for framework in networks.FRAMEWORKS)
    np.testing.assert_allclose(torch, keras, rtol=CLOSENESS)
    assert min(torch) < 0.9 * torch[0], "nothing was learnt, so nothing was compared"
