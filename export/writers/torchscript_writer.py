"""Writes `model.pt`: a scripted PyTorch module that `torch.jit.load` reads with none of our code.

Scripted, not traced: a trace would keep only the branch that its example took. Reading the file compiles the text in it with
the interpreter's lock held, so there is little of it: the operators that `nn.LSTM` and `torch.nn.utils.rnn` come down to,
without their checks, and none of the branches that this network does not take.

Packing costs more than it saves when no row is shorter than another, so a batch of full rows goes round it. (And
`torch.jit` reads the annotations of a class as types, so this module does not import `annotations`, which would make
them text.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from export.precision import Stored
from models.checkpoint import Weights, expected_shapes
from models.config import LSTMConfig

BACKEND = "torchscript"


def write(config: LSTMConfig, weights: Weights, path: Path, stored: Mapping[str, Stored] | None = None) -> None:
    """Writes the network to the file `path`, with the inputs and outputs of `export.canonical`.

    Matrices in `stored` are restored by the module itself while it is loaded. Raises `OSError` when writing fails.
    """
    network = _Network(config, weights, stored or {}).eval()
    script = torch.jit.script(network)
    path.write_bytes(script.save_to_buffer())  # type: ignore[no-untyped-call]


class _Network(nn.Module):
    """The canonical network. What is `Final` is decided while scripting; buffers that a network does not need are empty."""

    tokens: Final[bool]
    per_step: Final[bool]
    classify: Final[bool]
    bidirectional: Final[bool]
    last_id: Final[int]
    layers: Final[int]
    directions: Final[int]
    head_bias: Tensor

    def __init__(self, config: LSTMConfig, weights: Weights, stored: Mapping[str, Stored]) -> None:
        super().__init__()
        self.tokens = config.input == "tokens"
        self.per_step = config.head == "values_per_step"
        self.classify = config.head == "classification"
        self.bidirectional = config.bidirectional
        self.last_id = max(config.vocabulary - 1, 0)
        self.layers = config.layers
        self.directions = config.directions
        for name in ("input.mean", "input.scale", "head.bias", "output.mean", "output.scale"):
            self.register_buffer(name.replace(".", "_"), torch.tensor(weights.get(name, np.zeros(0, np.float32))))
        self.matrices = _tensors(weights, stored, ["head.weight", *["embedding"] * self.tokens])
        # Our order is that of torch.lstm, within the gates too.
        self.lstm = _tensors(weights, stored, [name for name in expected_shapes(config) if name.startswith("lstm.")])

    def forward(self, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps, matrices, lstm = x.size(1), self.matrices(), self.lstm()
        if self.tokens:
            features = torch.embedding(matrices[1], x.clamp(0, self.last_id))  # the padding may hold anything
        else:
            features = (x - self.input_mean) / self.input_scale
        # [rows, layers * directions, hidden] -> [layers * directions, rows, hidden]
        state = [h0.transpose(0, 1).contiguous(), c0.transpose(0, 1).contiguous()]
        if bool((lengths == steps).all()):
            hidden, hn, cn = torch._VF.lstm(
                features, state, lstm, True, self.layers, 0.0, False, self.bidirectional, True
            )
        else:
            longest, by_length = lengths.cpu().sort(descending=True)
            order = by_length.to(x.device)
            packed, sizes = torch._VF._pack_padded_sequence(features.index_select(0, order), longest, True)
            state = [state[0].index_select(1, order), state[1].index_select(1, order)]
            packed_hidden, hn, cn = torch._VF.lstm(
                packed, sizes, state, lstm, True, self.layers, 0.0, False, self.bidirectional
            )
            hidden, _ = torch._VF._pad_packed_sequence(packed_hidden, sizes, True, 0.0, steps)
            back = order.argsort()
            hidden, hn, cn = hidden.index_select(0, back), hn.index_select(1, back), cn.index_select(1, back)
        hn = hn.transpose(0, 1).contiguous()  # [rows, layers * directions, hidden]
        cn = cn.transpose(0, 1).contiguous()
        last = hn[:, -self.directions :].flatten(1)  # [rows, directions * hidden], of the last layer
        y = torch._C._nn.linear(hidden if self.per_step else last, matrices[0], self.head_bias)
        y = y.softmax(-1) if self.classify else y * self.output_scale + self.output_mean
        if self.per_step:
            behind = torch.arange(steps, device=x.device) >= lengths.unsqueeze(1)  # [rows, steps]
            y = y.masked_fill(behind.unsqueeze(2), 0.0)
        return y, hn, cn


class _Tensors(nn.Module):
    """Tensors of any number."""

    kept: list[Tensor]

    def __init__(self, kept: Sequence[Stored]) -> None:
        super().__init__()
        self.kept = [torch.tensor(tensor.array) for tensor in kept]

    def forward(self) -> list[Tensor]:
        return self.kept


class _Small(nn.Module):
    """Tensors that are small in the file and float32 in memory: restored by the very act of loading."""

    kept: list[Tensor]
    scales: list[Tensor]
    full: list[Tensor]

    def __init__(self, kept: Sequence[Stored]) -> None:
        super().__init__()
        self.kept = [torch.tensor(matrix.array) for matrix in kept]
        self.scales = [torch.tensor(np.zeros(0, np.float32) if m.scale is None else m.scale) for m in kept]
        self.full = self.restored(self.kept, self.scales)

    @torch.jit.export
    def restored(self, kept: list[Tensor], scales: list[Tensor]) -> list[Tensor]:
        full: list[Tensor] = []
        for tensor, scale in zip(kept, scales):  # noqa: B905 - torch.jit knows no strict
            matrix = tensor.to(torch.float32)
            full.append(matrix if scale.numel() == 0 else matrix * scale)
        return full

    @torch.jit.export
    def __getstate__(self) -> tuple[list[Tensor], list[Tensor], bool]:
        return self.kept, self.scales, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[list[Tensor], list[Tensor], bool]) -> None:
        self.kept = state[0]
        self.scales = state[1]
        self.training = state[2]
        self.full = self.restored(state[0], state[1])

    def forward(self) -> list[Tensor]:
        return self.full


def _tensors(weights: Weights, stored: Mapping[str, Stored], names: Sequence[str]) -> nn.Module:
    """A module that gives the weights of these names."""
    kept = [stored.get(name, Stored(weights[name], None)) for name in names]
    return _Small(kept) if stored else _Tensors(kept)
