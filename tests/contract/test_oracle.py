"""The oracle against itself where it could be wrong alone: one unit by hand, and rows that are cut and turned by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from models.config import LSTMConfig
from tests.support import artefacts, oracle


def test_one_unit_by_hand() -> None:
    config = LSTMConfig(features=1, hidden=1, head="values", outputs=1)
    weights = artefacts.weights(config)
    x, h, c = [0.7, -1.9], 0.3, -0.4
    as_one_row = {"x": [[[x[0]], [x[1]], [math.nan]]], "lengths": [2], "h0": [[[h]]], "c0": [[[c]]]}
    got = oracle.predict(config, weights, {name: np.array(array) for name, array in as_one_row.items()})
    (mean,), (scale,) = weights["input.mean"].tolist(), weights["input.scale"].tolist()
    w, u = (weights[f"lstm.0.forward.weight_{kind}"].ravel().tolist() for kind in ("input", "hidden"))
    b = sum(weights[f"lstm.0.forward.bias_{kind}"].astype(float) for kind in ("input", "hidden"))
    for step in x:
        i, f, g, o = (w[k] * (step - mean) / scale + u[k] * h + b[k] for k in range(4))
        c = c / (1 + math.exp(-f)) + math.tanh(g) / (1 + math.exp(-i))
        h = math.tanh(c) / (1 + math.exp(-o))
    y = (weights["head.weight"].item() * h + weights["head.bias"].item()) * weights["output.scale"].item()
    wanted = {"y": y + weights["output.mean"].item(), "hn": h, "cn": c}
    assert {name: array.item() for name, array in got.items()} == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize("config", artefacts.CONFIGS, ids=artefacts.described)
def test_a_row_of_a_batch_is_answered_like_that_row_cut_to_its_length(config: LSTMConfig) -> None:
    weights, inputs = artefacts.weights(config), artefacts.batch(config, 5, 9)
    together = oracle.predict(config, weights, inputs)
    for row, length in enumerate(inputs["lengths"]):
        alone = {name: array[[row]] for name, array in inputs.items()} | {"x": inputs["x"][[row], :length]}
        for name, array in oracle.predict(config, weights, alone).items():
            expected = together[name][[row]]
            if name == "y" and config.head == "values_per_step":
                assert not expected[:, length:].any()
                expected = expected[:, :length]
            np.testing.assert_allclose(array, expected, rtol=0, atol=1e-13)


def test_backward_is_forward_over_the_row_turned_round() -> None:
    both = dataclasses.replace(artefacts.FEATURES, layers=1, bidirectional=True)
    weights, inputs = artefacts.weights(both), artefacts.batch(both, 1, 9, full=True)
    turned = {
        **{"x": inputs["x"][:, ::-1], "lengths": inputs["lengths"]},
        **{name: inputs[name][:, 1:] for name in ("h0", "c0")},
    }
    renamed = {name.replace("backward", "forward"): array for name, array in weights.items() if "forward" not in name}
    renamed["head.weight"] = weights["head.weight"][:, both.hidden :]
    got = oracle.predict(dataclasses.replace(both, bidirectional=False), renamed, turned)
    expected = oracle.predict(both, weights, inputs)
    for name in ("hn", "cn"):
        np.testing.assert_allclose(got[name], expected[name][:, 1:], rtol=0, atol=1e-13)
