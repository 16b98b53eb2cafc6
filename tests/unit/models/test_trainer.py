"""A plan whose numbers cannot be followed is refused when it is made."""

from __future__ import annotations

from typing import Any

import pytest

from models.trainer import Plan, TrainingError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"noise": -0.1}, r"noise is -0\.1; it must not be negative"),
        ({"averaging": 1.0}, r"averaging is 1\.0"),
        ({"validation": 0.0}, r"validation is 0\.0"),
    ],
)
def test_plans_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        Plan(**fields)


@pytest.mark.parametrize("fields", [{}, {"epochs": 1}, {"noise": 0.0}, {"averaging": 0.99}, {"weight_decay": 0.0}])
def test_plans_within_range(fields: dict[str, Any]) -> None:
    Plan(**fields)
