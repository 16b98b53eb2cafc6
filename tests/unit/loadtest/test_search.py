"""The search for the highest rate, against servers that are one line."""

from __future__ import annotations

import pytest

from loadtest.search import CLOSE_ENOUGH, LOWEST_RATE, MOST_TRIALS, TRIES, Trial, highest_rate


@pytest.mark.parametrize("capacity", [1.5, 37, 99, 100, 101, 1234, 50_000])
@pytest.mark.parametrize("start", [1, 100, 10_000])
def test_it_finds_the_capacity(capacity: float, start: float) -> None:
    found = highest_rate(lambda rate: rate <= capacity, start)
    assert found.rate is not None
    assert found.bounded
    assert found.rate <= capacity <= found.rate * (1 + 2 * CLOSE_ENOUGH)
    assert Trial(found.rate, True) in found.trials
    assert len(found.trials) <= MOST_TRIALS
    for trial in found.trials:
        assert found.trials.count(trial) == (1 if trial.held else TRIES)


def test_a_server_that_stands_nothing() -> None:
    found = highest_rate(lambda rate: False, 100)
    assert found.rate is None
    assert found.trials[-1] == Trial(LOWEST_RATE, False)


def test_a_server_that_stands_everything_is_not_tried_for_ever() -> None:
    found = highest_rate(lambda rate: True, 1)
    assert not found.bounded
    assert len(found.trials) == MOST_TRIALS
    assert all(trial.held for trial in found.trials)


def test_a_server_that_cannot_decide_still_ends() -> None:
    answers = iter([True, True, False, True, False, False, True, True] * 10)
    found = highest_rate(lambda rate: next(answers), 100)
    assert len(found.trials) <= MOST_TRIALS + 1


def test_one_disturbed_trial_does_not_decide() -> None:
    disturbed = iter([False])
    found = highest_rate(lambda rate: rate <= 1000 and (rate != 400 or next(disturbed, True)), 100)
    assert found.trials[2:4] == (Trial(400, False), Trial(400, True))
    assert found.rate is not None
    assert found.rate > 900


def test_an_error_ends_the_search() -> None:
    def broken(rate: float) -> bool:
        raise KeyError(rate)

    with pytest.raises(KeyError):
        highest_rate(broken, 100)


@pytest.mark.parametrize("capacity", [1, 2, 7, 200, 5000])
@pytest.mark.parametrize("start", [1, 50])
def test_sequences_are_whole(capacity: int, start: int) -> None:
    found = highest_rate(lambda level: level <= capacity, start, whole=True)
    assert all(trial.rate == int(trial.rate) >= 1 for trial in found.trials)
    assert found.rate is not None
    assert found.rate <= capacity < found.rate + max(1, 2 * CLOSE_ENOUGH * found.rate)
