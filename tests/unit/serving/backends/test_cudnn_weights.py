"""Which tensors of a loaded TorchScript file are the weights of a recurrent layer; a GPU alone can show that they move."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.config import LSTMConfig
from serving.backends import cudnn_weights
from tests.support import artefacts


@pytest.mark.parametrize("config", artefacts.CONFIGS, ids=artefacts.described)
def test_those_of_our_own_files(config: LSTMConfig, tmp_path: Path) -> None:
    file = artefacts.make("torchscript", config, artefacts.weights(config), tmp_path)
    module = torch.jit.load(file)
    (layer,) = cudnn_weights.layers(module)
    assert _shape(layer) == (nn.LSTM, config.layer_inputs(0), config.hidden, config.layers, config.bidirectional, 0)
    assert _addresses(layer) == [tensor.data_ptr() for tensor in module.lstm()]


class TwoLayers(nn.Module):
    """What PyTorch's own layers look like in a file."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, 2, bidirectional=True, proj_size=2)
        self.gru = nn.GRU(3, 5, bias=False)
        self.plain = nn.RNN(3, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.lstm(x)[0], self.gru(x)[0], self.plain(x)[0]


def traced(module: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit is deprecated
        return torch.jit.trace(module, torch.zeros(2, 3, 3))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("write", [torch.jit.script, traced])
def test_those_of_the_files_of_others(write: Any, tmp_path: Path) -> None:
    write(TwoLayers().eval()).save(tmp_path / "model.pt")
    module = torch.jit.load(tmp_path / "model.pt")
    lstm, gru = cudnn_weights.layers(module)
    assert _shape(lstm) == (nn.LSTM, 3, 5, 2, True, 2)
    assert _shape(gru) == (nn.GRU, 3, 5, 1, False, 0)
    assert not gru.bias
    for layer, part in ((lstm, module.lstm), (gru, module.gru)):
        assert _addresses(layer) == [tensor.data_ptr() for tensor in part.parameters()]


def test_on_a_cpu_nothing_moves(tmp_path: Path) -> None:
    torch.jit.script(TwoLayers()).save(tmp_path / "model.pt")
    module = torch.jit.load(tmp_path / "model.pt")
    before = [tensor.data_ptr() for tensor in module.parameters()]
    cudnn_weights.compact(module)
    assert [tensor.data_ptr() for tensor in module.parameters()] == before


def _shape(layer: Any) -> tuple[Any, ...]:
    of = layer.input_size, layer.hidden_size, layer.num_layers, layer.bidirectional, layer.proj_size
    return (type(layer), *of)


def _addresses(layer: Any) -> list[int]:
    return [tensor.data_ptr() for tensor in layer._flat_weights]
