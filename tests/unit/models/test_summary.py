"""What a finished training says for itself, and that it says so when a baseline is better."""

from __future__ import annotations

from typing import Any

from models.checkpoint import Checkpoint, expected_shapes, no_scaling
from models.config import LSTMConfig
from models.initial import draw
from models.summary import summarise


def checkpoint(config: LSTMConfig, scores: dict[str, Any]) -> Checkpoint:
    weights = {**draw(config, 0), **no_scaling(config)}
    assert weights.keys() == expected_shapes(config).keys()
    training = {"epochs": 7, "seconds": 12.4, "scores": scores}
    return Checkpoint(config=config, weights=weights, framework="torch", training=training)


CLASSIFIER = LSTMConfig(features=1, outputs=2, hidden=2)
FORECASTER = LSTMConfig(features=1, head="values_per_step", outputs=2, hidden=2)


def test_a_classifier_gets_a_line() -> None:
    scores = {"test_accuracy": 0.9, "baselines": {"majority class": 0.6}}
    assert summarise("beat", checkpoint(CLASSIFIER, scores)) == (
        "beat: test accuracy 0.9000 (majority class 0.6000) after 7 epochs in 12 s"
    )


def test_a_classifier_that_is_as_good_as_a_baseline_is_no_better() -> None:
    scores = {"test_accuracy": 0.6, "baselines": {"majority class": 0.6}}
    assert summarise("beat", checkpoint(CLASSIFIER, scores)).splitlines()[1:] == [
        "the network is no better than majority class"
    ]


def test_values_get_a_table_and_a_line_for_each_baseline_that_is_not_beaten() -> None:
    scores = {
        "test_mean_absolute_error": {"t+1": 2.0, "t+3": 4.25},
        "baselines": {"persistence": {"t+1": 2.5, "t+3": 4.0}, "climatology": {"t+1": 3.0, "t+3": 5.0}},
    }
    assert summarise("weather", checkpoint(FORECASTER, scores)).splitlines() == [
        "weather: mean absolute error on the test part, after 7 epochs in 12 s",
        "                   t+1   t+3",
        "  network            2  4.25",
        "  persistence      2.5     4",
        "  climatology        3     5",
        "at t+3 the network is no better than persistence",
    ]
