"""The picture of a training is a PNG of a known size, whatever was learnt."""

from __future__ import annotations

import struct

import pytest

from models.config import LSTMConfig
from models.learning_curve import draw
from models.training import Epoch, Trained

CLASSIFIER = LSTMConfig(features=1, outputs=2)
FORECASTER = LSTMConfig(features=1, head="values")


@pytest.mark.parametrize("config", [CLASSIFIER, FORECASTER])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_picture_of_every_epoch(config: LSTMConfig, epochs: int) -> None:
    history = tuple(Epoch(number, 1 / number, 2 / number, 0.5) for number in range(1, epochs + 1))
    png = draw(Trained(config, {}, history[-1], history), "a title")
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (1280, 560)
