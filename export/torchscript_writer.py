"""Writes `model.pt`: a scripted PyTorch module that `torch.jit.load` reads with none of our code.

Scripted, not traced: a trace would keep only the branch that its example took. One fact that surprises: packing costs
more than it saves when no row is shorter than another, so a batch of full rows goes round it. (And `torch.jit` reads
the annotations of a class as types, so this module does not import `annotations`, which would make them text.)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from export.precision import Stored
from models.checkpoint import DIRECTIONS, Weights
from models.config import LSTMConfig

BACKEND = "torchscript"


def write(config: LSTMConfig, weights: Weights, path: Path, stored: Mapping[str, Stored] | None = None) -> None:
    """Writes the network to the file `path`, with the inputs and outputs of `export.signature`.

    Matrices in `stored` are restored by the module itself while it is loaded. Raises `OSError` when writing fails.
    """
    network = _Network(config, weights, stored or {}).eval()
    script = torch.jit.script(network)
    path.write_bytes(script.save_to_buffer())  # type: ignore[no-untyped-call]


class _Network(nn.Module):
    """The canonical network. Buffers that a configuration does not need are empty, and no step reads them."""

    small: Final[bool]
    input_mean: Tensor
    input_scale: Tensor
    head_bias: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(self, config: LSTMConfig, weights: Weights, stored: Mapping[str, Stored]) -> None:
        super().__init__()
        self.small = bool(stored)
        self.tokens = config.input == "tokens"
        self.last_id = max(config.vocabulary - 1, 0)
        self.per_step = config.head == "values_per_step"
        self.classify = config.head == "classification"
        self.directions = config.directions
        for name in (f"{part}.{kind}" for part in ("input", "output") for kind in ("mean", "scale")):
            array = weights.get(name, np.zeros(0, np.float32))
            self.register_buffer(name.replace(".", "_"), torch.tensor(array))
        self.register_buffer("head_bias", torch.tensor(weights["head.bias"]))
        nothing = np.zeros((0, 0), np.float32)
        self.matrices = _Small(
            [stored.get(name, Stored(weights.get(name, nothing), None)) for name in ("embedding", "head.weight")]
        )
        if stored:
            self.lstm: nn.Module = _SmallLSTM(config, weights, stored)
            return
        self.lstm = nn.LSTM(
            config.layer_inputs(0), config.hidden, config.layers, batch_first=True, bidirectional=config.bidirectional
        )
        self.lstm.load_state_dict(_parameters(config, weights))
        self.lstm.requires_grad_(False)

    def forward(self, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps = x.size(1)
        matrices = self.matrices()
        embedding, head_weight = matrices[0], matrices[1]
        if self.tokens:
            features = nn.functional.embedding(x.clamp(0, self.last_id), embedding)  # the padding may hold anything
        else:
            features = (x - self.input_mean) / self.input_scale
        # [rows, layers * directions, hidden] -> [layers * directions, rows, hidden]
        state = (h0.transpose(0, 1).contiguous(), c0.transpose(0, 1).contiguous())
        if bool((lengths == steps).all()):
            hidden, (hn, cn) = self.lstm(features, state)
        else:
            packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed_hidden, (hn, cn) = self._packed(packed, state)
            hidden, _ = pad_packed_sequence(packed_hidden, batch_first=True, total_length=steps)
        hn = hn.transpose(0, 1).contiguous()  # [rows, layers * directions, hidden]
        cn = cn.transpose(0, 1).contiguous()
        last = hn[:, -self.directions :].flatten(1)  # [rows, directions * hidden], of the last layer
        y = nn.functional.linear(hidden if self.per_step else last, head_weight, self.head_bias)
        y = y.softmax(-1) if self.classify else y * self.output_scale + self.output_mean
        if self.per_step:
            behind = torch.arange(steps, device=x.device) >= lengths.unsqueeze(1)  # [rows, steps]
            y = y.masked_fill(behind.unsqueeze(2), 0.0)
        return y, hn, cn

    def _packed(
        self, packed: PackedSequence, state: tuple[Tensor, Tensor]
    ) -> tuple[PackedSequence, tuple[Tensor, Tensor]]:
        if self.small:
            return self.lstm.packed(packed, state)
        return self.lstm(packed, state)


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


class _SmallLSTM(nn.Module):
    """What `nn.LSTM` computes, over weights that are kept small; its two forms have a name each."""

    def __init__(self, config: LSTMConfig, weights: Weights, stored: Mapping[str, Stored]) -> None:
        super().__init__()
        self.layers = config.layers
        self.bidirectional = config.bidirectional
        kept: list[Stored] = []
        for layer in range(config.layers):
            for side in DIRECTIONS[: config.directions]:
                prefix = f"lstm.{layer}.{side}"
                kept += [stored[f"{prefix}.weight_input"], stored[f"{prefix}.weight_hidden"]]
                kept += [Stored(weights[f"{prefix}.{kind}"], None) for kind in ("bias_input", "bias_hidden")]
        self.weights = _Small(kept)

    def forward(self, steps: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        both = [state[0], state[1]]
        outputs, hn, cn = torch._VF.lstm(
            steps, both, self.weights(), True, self.layers, 0.0, False, self.bidirectional, True
        )
        return outputs, (hn, cn)

    @torch.jit.export
    def packed(
        self, steps: PackedSequence, state: tuple[Tensor, Tensor]
    ) -> tuple[PackedSequence, tuple[Tensor, Tensor]]:
        order, back = steps.sorted_indices, steps.unsorted_indices
        assert order is not None
        assert back is not None
        both = [state[0].index_select(1, order), state[1].index_select(1, order)]
        outputs, hn, cn = torch._VF.lstm(
            steps.data, steps.batch_sizes, both, self.weights(), True, self.layers, 0.0, False, self.bidirectional
        )
        sequence = PackedSequence(outputs, steps.batch_sizes, order, back)
        return sequence, (hn.index_select(1, back), cn.index_select(1, back))


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
