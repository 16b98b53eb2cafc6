"""The network of an `LSTMConfig` in PyTorch, and the reader between it and the canonical weights.

Nothing is transposed or reordered on the way to the canonical layout, because that layout is PyTorch's own (gates
input, forget, cell, output; [out, in]; two biases). The reader is a table of names.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.checkpoint import DIRECTIONS, Weights, check_weights
from models.config import LSTMConfig
from models.inputs import INPUTS, OUTPUTS, Arrays, complete


class TorchLSTM(nn.Module):
    """A stack of LSTM layers with one head; see `models.networks.Network` for what it offers outside training.

    `forward` returns the head's linear output (logits, or values in standardised units), which is what a loss wants;
    `answer` and `predict` return probabilities and raw units.
    """

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.config = config
        if config.input == "tokens":
            self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        else:
            self.input_mean = nn.Buffer(torch.zeros(config.features))
            self.input_scale = nn.Buffer(torch.ones(config.features))
        self.lstm = nn.LSTM(
            config.layer_inputs(0),
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.layers > 1 else 0.0,  # PyTorch drops between the layers only, and warns
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden * config.directions, config.outputs)
        if config.head != "classification":
            self.output_mean = nn.Buffer(torch.zeros(config.outputs))
            self.output_scale = nn.Buffer(torch.ones(config.outputs))

    def forward(self, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The canonical inputs -> the head's linear output, `hn`, `cn`; the output is not masked in the padding."""
        rows, steps = x.shape[:2]
        padding = torch.arange(steps, device=x.device) >= lengths[:, None]  # [rows, steps]
        if self.config.input == "tokens":
            inputs = self.embedding(x.masked_fill(padding, 0))
        else:
            inputs = ((x - self.input_mean) / self.input_scale).masked_fill(padding[:, :, None], 0.0)
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        state = (
            h0.transpose(0, 1).contiguous(),
            c0.transpose(0, 1).contiguous(),
        )  # [layers * directions, rows, hidden]
        outputs, state = self.lstm(packed, state)
        hn, cn = (part.transpose(0, 1) for part in state)  # [rows, layers * directions, hidden]
        if self.config.head == "values_per_step":
            read, _ = pad_packed_sequence(outputs, batch_first=True, total_length=steps)
        else:
            read = hn[:, -self.config.directions :].reshape(rows, -1)  # the last layer's directions, side by side
        return self.head(self.dropout(read)), hn, cn

    def answer(self, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The canonical inputs -> the canonical outputs `y`, `hn`, `cn`."""
        linear, hn, cn = self(x, lengths, h0, c0)
        if self.config.head == "classification":
            return linear.softmax(-1), hn, cn
        y = linear * self.output_scale + self.output_mean
        if self.config.head == "values_per_step":
            padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
            y = y.masked_fill(padding[:, :, None], 0.0)
        return y, hn, cn

    def predict(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See `models.networks.Network.predict`."""
        completed = complete(self.config, inputs)
        was_training, device = self.training, self.head.weight.device
        self.eval()
        with torch.inference_mode():
            outputs = self.answer(*(torch.tensor(completed[name], device=device) for name in INPUTS))
        self.train(was_training)
        return {name: output.cpu().numpy() for name, output in zip(OUTPUTS, outputs, strict=True)}

    def canonical_weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """See `models.networks.Network.canonical_weights`."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._canonical_names().items()}

    def load_canonical(self, weights: Weights) -> None:
        """See `models.networks.Network.load_canonical`."""
        check_weights(self.config, weights)
        with torch.no_grad():
            for name, tensor in self._canonical_names().items():
                tensor.copy_(torch.tensor(weights[name]))

    def _canonical_names(self) -> dict[str, Tensor]:
        """Each parameter and buffer under its name in a checkpoint."""
        tensors = {"head.weight": self.head.weight, "head.bias": self.head.bias}
        if self.config.input == "tokens":
            tensors["embedding"] = self.embedding.weight
        else:
            tensors |= {"input.mean": self.input_mean, "input.scale": self.input_scale}
        if self.config.head != "classification":
            tensors |= {"output.mean": self.output_mean, "output.scale": self.output_scale}
        for layer in range(self.config.layers):
            for direction, suffix in zip(DIRECTIONS[: self.config.directions], ("", "_reverse"), strict=False):
                for part, kind in itertools.product(("weight", "bias"), ("input", "hidden")):
                    tensor = getattr(self.lstm, f"{part}_{kind[0]}h_l{layer}{suffix}")  # weight_ih_l0_reverse
                    tensors[f"lstm.{layer}.{direction}.{part}_{kind}"] = tensor
        return tensors
