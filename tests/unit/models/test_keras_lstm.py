"""What differs between Keras and the canonical layout: matrices are transposed, and there is one bias where there are two."""

from __future__ import annotations

import numpy as np

from models.checkpoint import expected_shapes, no_scaling
from models.config import LSTMConfig
from models.initial import draw
from models.keras_lstm import KerasLSTM

CONFIG = LSTMConfig(features=3, layers=2, hidden=5, bidirectional=True, head="values", outputs=4)


def test_the_two_biases_are_added_and_come_back_as_one() -> None:
    weights = {**draw(CONFIG, 0), **no_scaling(CONFIG)}
    network = KerasLSTM(CONFIG)
    network.load_canonical(weights)
    back = network.canonical_weights()
    for name in ("lstm.0.forward", "lstm.1.backward"):
        np.testing.assert_array_equal(
            back[f"{name}.bias_input"], weights[f"{name}.bias_input"] + weights[f"{name}.bias_hidden"]
        )
        assert not back[f"{name}.bias_hidden"].any()
    network.load_canonical(back)
    for name, array in network.canonical_weights().items():
        np.testing.assert_array_equal(array, back[name])


def test_matrices_are_transposed_and_a_layer_has_a_cell_for_each_direction() -> None:
    network = KerasLSTM(CONFIG)
    weights = network.canonical_weights()
    assert weights.keys() == expected_shapes(CONFIG).keys()
    assert [cell.go_backwards for cell in network.cells] == [False, True, False, True]
    np.testing.assert_array_equal(weights["lstm.1.forward.weight_input"], network.cells[2].cell.kernel.numpy().T)
    np.testing.assert_array_equal(weights["head.weight"], network.head.kernel.numpy().T)
