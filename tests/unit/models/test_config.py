"""A description that no framework could build is refused by the field that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from models.config import ConfigError, LSTMConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": "images"}, "input is 'images'; it must be one of features, tokens"),
        ({"features": 3, "head": "pooling", "outputs": 2}, "head is 'pooling'"),
        ({"features": 0, "outputs": 2}, "features is 0"),
        ({"input": "tokens", "embedding": 2, "outputs": 2}, "vocabulary is 0"),
        ({"input": "tokens", "vocabulary": 5, "embedding": 2, "features": 3, "outputs": 2}, "features is 3"),
        ({"features": 3, "vocabulary": 5, "outputs": 2}, "vocabulary is 5, but the input is 'features'"),
        ({"features": 3, "layers": 0, "outputs": 2}, "layers is 0"),
        ({"features": 3, "hidden": -1, "outputs": 2}, "hidden is -1"),
        ({"features": 3, "dropout": 1.0, "outputs": 2}, "dropout is 1.0"),
        ({"features": 3, "dropout": float("nan"), "outputs": 2}, "dropout is nan"),
        ({"features": 3, "outputs": 1}, "outputs is 1; a classification needs at least 2"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        LSTMConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"feature": 3}, "unknown field 'feature'"),
        ({"features": "3"}, "features is '3'; it must be of type int"),
        ({"features": 3.0}, "features is 3.0"),
        ({"bidirectional": 1}, "bidirectional is 1; it must be of type bool"),
        ({"layers": True}, "layers is True"),
    ],
)
def test_foreign_fields_and_types_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LSTMConfig.from_mapping(fields)


def test_json_round_trip() -> None:
    config = LSTMConfig(features=3, layers=2, hidden=7, bidirectional=True, dropout=0.25, head="values", outputs=2)
    assert LSTMConfig.from_mapping(json.loads(config.to_json())) == config


def test_widths_and_streaming_follow_from_the_directions() -> None:
    one = LSTMConfig(features=3, hidden=7, outputs=2)
    two = LSTMConfig(features=3, hidden=7, outputs=2, bidirectional=True)
    assert (one.directions, one.layer_inputs(0), one.layer_inputs(1), one.streamable) == (1, 3, 7, True)
    assert (two.directions, two.layer_inputs(0), two.layer_inputs(1), two.streamable) == (2, 3, 14, False)
