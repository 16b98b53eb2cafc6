"""What is said where a tolerance is missed, and the canonical network in float64, which it is said of."""

from __future__ import annotations

import numpy as np
import pytest

from export import float64
from export.errors import ExportError
from models.config import LSTMConfig
from tests.support import artefacts, oracle

CONFIGS = [
    LSTMConfig(features=3, hidden=4, layers=2, bidirectional=True, head="values", outputs=2),
    LSTMConfig(features=3, hidden=4, head="values_per_step", outputs=2),
    LSTMConfig(input="tokens", vocabulary=7, embedding=3, hidden=4, head="classification", outputs=3),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["both directions", "per step", "tokens"])
def test_it_is_the_network_of_the_equations(config: LSTMConfig) -> None:
    generator = np.random.default_rng(0)
    lengths = np.array([5, 2, 1])
    shape = (3, config.layers * config.directions, config.hidden)
    x = generator.normal(size=(3, 5, 3)) if config.input == "features" else generator.integers(0, 7, (3, 5))
    x = np.where((np.arange(5) < lengths[:, None])[(...,) + (None,) * (x.ndim - 2)], x, x.dtype.type(-1))
    inputs = {"x": x, "lengths": lengths, "h0": generator.normal(size=shape), "c0": generator.normal(size=shape)}
    weights = artefacts.weights(config)
    got, expected = float64.predict(config, weights, inputs), oracle.predict(config, weights, inputs)
    for name, array in expected.items():
        assert got[name].dtype == np.float64
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("apart", "natural", "said"),
    [
        (3e-5, 2e-5, "float32 itself is 2e-05 from float64 for this network on these samples, so that is rounding; allow it "
         "with --tolerance 1e-04"),
        (2.4e-5, 2e-6, "allow it with --tolerance 5e-05"),
        (1e-5, 1e-5, "allow it with --tolerance 2e-05"),
        (0.2, 0.1, "no tolerance allows for that, as 0.1 is the largest"),
        (3e-5, 1e-7, "float32 is only 1e-07 from float64 for this network on these samples, so that is no rounding"),
        (float("inf"), 1e-7, "so that is no rounding"),
        (3e-5, None, "it could not be computed in float64, which would tell whether that is rounding; allow it with"),
    ],
)  # fmt: skip
def test_what_is_said(apart: float, natural: float | None, said: str) -> None:
    assert said in float64.told(apart, natural)


@pytest.mark.parametrize("tolerance", [0.0, -1e-5, 0.2, float("nan"), float("inf")])
def test_a_tolerance_has_bounds(tolerance: float) -> None:
    with pytest.raises(
        ExportError, match=r"it must lie between 0 and 0\.1: answers that may be further apart than that"
    ):
        float64.check_tolerance(tolerance)
    float64.check_tolerance(0.1)
