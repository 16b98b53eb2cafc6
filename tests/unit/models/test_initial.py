"""Where a training starts: the same weights for the same seed, each drawn as wide as its layer asks."""

from __future__ import annotations

import numpy as np
import pytest

from models import initial
from models.checkpoint import check_weights, expected_shapes, no_scaling
from models.config import LSTMConfig

FEATURES = LSTMConfig(features=3, layers=2, hidden=64, bidirectional=True, head="values", outputs=4)
TOKENS = LSTMConfig(input="tokens", vocabulary=500, embedding=8, hidden=16, outputs=4)


@pytest.mark.parametrize("config", [FEATURES, TOKENS])
def test_everything_is_drawn_but_the_scales(config: LSTMConfig) -> None:
    weights = initial.draw(config, 3)
    assert weights.keys() == expected_shapes(config).keys() - no_scaling(config).keys()
    check_weights(config, {**weights, **no_scaling(config)})


def test_the_seed_decides() -> None:
    first, again, other = (initial.draw(FEATURES, seed)["head.weight"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_layer_is_uniform_within_the_root_of_its_units_and_an_embedding_is_normal() -> None:
    weights = initial.draw(FEATURES, 0)
    for name, units in (
        ("lstm.0.forward.weight_hidden", 64),
        ("lstm.1.backward.weight_input", 64),
        ("head.weight", 128),
    ):
        assert 0.9 / np.sqrt(units) < np.abs(weights[name]).max() <= 1 / np.sqrt(units)
    assert initial.draw(TOKENS, 0)["embedding"].std() == pytest.approx(1, abs=0.05)
