"""Writes `model.pt`: a scripted PyTorch module that `torch.jit.load` reads with none of our code.

Scripted, not traced: a trace would keep only the branch that its example took. One fact that surprises: packing costs
more than it saves when no row is shorter than another, so a batch of full rows goes round it. (And `torch.jit` reads
the annotations of a class as types, so this module does not import `annotations`, which would make them text.)
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.checkpoint import DIRECTIONS, Weights
from models.config import LSTMConfig

BACKEND = "torchscript"


def write(config: LSTMConfig, weights: Weights, path: Path) -> None:
    """Writes the network to the file `path`, with the inputs and outputs of `export.signature`.

    Raises `OSError` when writing fails.
    """
    network = _Network(config, weights).eval()
    script = torch.jit.script(network)
    path.write_bytes(script.save_to_buffer())  # type: ignore[no-untyped-call]


class _Network(nn.Module):
    """The canonical network. Buffers that a configuration does not need are empty, and no step reads them."""

    embedding: Tensor
    input_mean: Tensor
    input_scale: Tensor
    head_weight: Tensor
    head_bias: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(self, config: LSTMConfig, weights: Weights) -> None:
        super().__init__()
        self.tokens = config.input == "tokens"
        self.last_id = max(config.vocabulary - 1, 0)
        self.per_step = config.head == "values_per_step"
        self.classify = config.head == "classification"
        self.directions = config.directions
        for name in ("embedding", *(f"{part}.{kind}" for part in ("input", "output") for kind in ("mean", "scale"))):
            array = weights.get(name, np.zeros(0, np.float32))
            self.register_buffer(name.replace(".", "_"), torch.tensor(array))
        self.register_buffer("head_weight", torch.tensor(weights["head.weight"]))
        self.register_buffer("head_bias", torch.tensor(weights["head.bias"]))
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
        y = y.softmax(-1) if self.classify else y * self.output_scale + self.output_mean
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
        f"{theirs}_l{layer}{'_reverse' if direction == 'backward' else ''}": torch.tensor(
            weights[f"lstm.{layer}.{direction}.{ours}"]
        )
        for layer in range(config.layers)
        for direction in DIRECTIONS[: config.directions]
        for theirs, ours in kinds.items()
    }
