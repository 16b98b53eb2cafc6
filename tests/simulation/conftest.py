"""How many seeds are simulated, or which one again."""

from __future__ import annotations

import pytest

SEEDS = 1000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seeds", type=int, default=SEEDS, help=f"how many seeds tests/simulation runs, from 0 (default {SEEDS})"
    )
    parser.addoption("--seed", type=int, help="the one seed that tests/simulation runs again, with its history")


@pytest.fixture
def replayed(request: pytest.FixtureRequest) -> bool:
    """Whether one seed is run again."""
    return request.config.getoption("--seed") is not None


@pytest.fixture
def seeds(request: pytest.FixtureRequest, replayed: bool) -> range:
    """The seeds to run."""
    one = request.config.getoption("--seed")
    return range(one, one + 1) if replayed else range(request.config.getoption("--seeds"))


def pytest_report_header(config: pytest.Config) -> str:
    """What is about to be simulated. Raises `UsageError` where that would be nothing."""
    one, seeds = config.getoption("--seed"), config.getoption("--seeds")
    if seeds < 1:
        raise pytest.UsageError(f"--seeds is {seeds}; at least 1 is simulated")
    return f"simulation: seed {one} again" if one is not None else f"simulation: {seeds} seeds"
