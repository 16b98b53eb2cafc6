"""Writes `model.pt`: a scripted PyTorch module that `torch.jit.load` reads with none of our code.

Scripted, not traced: a trace would keep only the branch that its example took. One fact that surprises: packing costs
more than it saves when no row is shorter than another, so a batch of full rows goes round it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.checkpoint import DIRECTIONS, Weights
from models.config import LSTMConfig

FORMAT = "torchscript"
BACKEND = "torchscript"


def write(config: LSTMConfig, weights: Weights, path: Path) -> None:
    """Writes the network to the file `path`, with the inputs and outputs of `export.signature`.

    Raises `OSError` or `RuntimeError` when writing fails.
    """
    network = _Network(config, weights).eval()
    torch.jit.script(network).save(str(path))


class _Network(nn.Module):
    """The canonical network; what is final is a constant of the script, and a branch on it is compiled away."""

    def __init__(self, config: LSTMConfig, weights: Weights) -> None:
        super().__init__()
        self.tokens: bool = config.input == "tokens"
        self.last_id: int = max(config.vocabulary - 1, 0)
        self.per_step: bool = config.head == "values_per_step"
        self.classify: bool = config.head == "classification"
        self.directions: int = config.directions
        none = np.zeros(0, np.float32)
        for name in (
            "embedding",
            "input.mean",
            "input.scale",
            "head.weight",
            "head.bias",
            "output.mean",
            "output.scale",
        ):
            array = torch.from_numpy(weights.get(name, none).copy())
            self.register_buffer(name.replace(".", "_"), array)
        self.lstm = nn.LSTM(
            config.layer_inputs(0), config.hidden, config.layers, batch_first=True, bidirectional=config.bidirectional
        )
        self.lstm.load_state_dict(_parameters(config, weights))
        self.lstm.requires_grad_(False)

    def forward(self, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps = x.size(1)
        if self.tokens:
            features = nn.functional.embedding(
                x.clamp(0, self.last_id), self.embedding
            )  # the padding may hold anything
        else:
            features = (x - self.input_mean) / self.input_scale
        # [rows, layers * directions, hidden] -> [layers * directions, rows, hidden]
        state = (h0.transpose(0, 1).contiguous(), c0.transpose(0, 1).contiguous())
        if bool((lengths == steps).all()):
            hidden, (hn, cn) = self.lstm(features, state)
        else:
            packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed_hidden, (hn, cn) = self.lstm(packed, state)
            hidden, _ = pad_packed_sequence(packed_hidden, batch_first=True, total_length=steps)
        hn = hn.transpose(0, 1).contiguous()  # [rows, layers * directions, hidden]
        cn = cn.transpose(0, 1).contiguous()
        last = hn[:, -self.directions :].flatten(1)  # [rows, directions * hidden], of the last layer
        y = nn.functional.linear(hidden if self.per_step else last, self.head_weight, self.head_bias)
        if self.classify:
            y = y.softmax(-1)
        else:
            y = y * self.output_scale + self.output_mean
        if self.per_step:
            behind = torch.arange(steps, device=x.device) >= lengths.unsqueeze(1)  # [rows, steps]
            y = y.masked_fill(behind.unsqueeze(2), 0.0)
        return y, hn, cn


def _parameters(config: LSTMConfig, weights: Weights) -> dict[str, Tensor]:
    """The state dict of `torch.nn.LSTM`, whose gates are in our order."""
    kinds = {
        "weight_ih": "weight_input",
        "weight_hh": "weight_hidden",
        "bias_ih": "bias_input",
        "bias_hh": "bias_hidden",
    }
    return {
        f"{theirs}_l{layer}{'_reverse' if direction == 'backward' else ''}": torch.from_numpy(
            weights[f"lstm.{layer}.{direction}.{ours}"].copy()
        )
        for layer in range(config.layers)
        for direction in DIRECTIONS[: config.directions]
        for theirs, ours in kinds.items()
    }
