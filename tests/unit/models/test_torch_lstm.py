"""The canonical layout is PyTorch's own: a checkpoint's arrays are the module's, under other names and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.checkpoint import expected_shapes
from models.config import LSTMConfig
from models.torch_lstm import TorchLSTM

DEEP = LSTMConfig(features=3, layers=2, hidden=5, bidirectional=True, head="values", outputs=4, dropout=0.5)
TOKENS = LSTMConfig(input="tokens", vocabulary=11, embedding=6, hidden=5, outputs=4)


@pytest.mark.parametrize(
    ("config", "ours", "theirs"),
    [
        (DEEP, "input.mean", "input_mean"),
        (DEEP, "lstm.0.forward.weight_input", "lstm.weight_ih_l0"),
        (DEEP, "lstm.1.backward.weight_hidden", "lstm.weight_hh_l1_reverse"),
        (DEEP, "lstm.1.forward.bias_input", "lstm.bias_ih_l1"),
        (DEEP, "output.scale", "output_scale"),
        (TOKENS, "embedding", "embedding.weight"),
        (TOKENS, "head.bias", "head.bias"),
    ],
)
def test_arrays_are_the_modules_own(config: LSTMConfig, ours: str, theirs: str) -> None:
    network = TorchLSTM(config)
    np.testing.assert_array_equal(network.canonical_weights()[ours], network.state_dict()[theirs].numpy())


@pytest.mark.parametrize("config", [DEEP, TOKENS])
def test_nothing_of_the_module_is_left_out(config: LSTMConfig) -> None:
    network = TorchLSTM(config)
    assert network.canonical_weights().keys() == expected_shapes(config).keys()
    assert len(network.state_dict()) == len(expected_shapes(config))


def test_weights_that_are_read_are_a_copy() -> None:
    network = TorchLSTM(TOKENS)
    network.canonical_weights()["head.bias"][:] = 7
    assert not (network.head.bias == 7).any()


def test_answers_have_no_dropout_and_training_goes_on_with_it() -> None:
    network = TorchLSTM(DEEP).train()
    x = np.ones((2, 4, 3), np.float32)
    first, second = (network.predict({"x": x})["y"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert network.training
    zeros = torch.zeros(2, 4, 5)
    linear, _, _ = network(torch.from_numpy(x), torch.tensor([4, 4]), zeros, zeros)
    again, _, _ = network(torch.from_numpy(x), torch.tensor([4, 4]), zeros, zeros)
    assert not torch.equal(linear, again)
