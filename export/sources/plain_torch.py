"""Whether a PyTorch module is a plain stack of LSTM and linear layers, and if not, why not; see `plain`.

A module is tried for that in both orders of axes, since the canonical network has the rows first whatever the module
has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.sources import plain
from models.checkpoint import DIRECTIONS, Checkpoint, no_scaling
from models.config import LSTMConfig
from models.torch_lstm import TorchLSTM
from serving.signature.stated import Stated
from serving.verification import golden

_HARMLESS = (nn.Dropout, nn.Identity, nn.Softmax, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Flatten)


def recognise(module: nn.Module, inputs: Mapping[str, Stated], described: Mapping[str, Any]) -> Checkpoint | str:
    """The checkpoint of a module that is a plain stack of LSTM and linear layers with one input; of any other, why it is none."""
    parts = [part for part in module.modules() if not list(part.children())]
    lstms = [part for part in parts if isinstance(part, nn.LSTM)]
    linear = [part for part in parts if isinstance(part, nn.Linear)]
    embedding = [part for part in parts if isinstance(part, nn.Embedding)]
    others = [part for part in parts if not isinstance(part, (nn.LSTM, nn.Linear, nn.Embedding, *_HARMLESS))]
    if others:
        return f"it has a {type(others[0]).__name__} beside LSTM and linear layers"
    widths, directions = {part.hidden_size for part in lstms}, {1 + part.bidirectional for part in lstms}
    if reason := plain.why_not(len(inputs), len(linear), len(embedding), widths, directions):
        return reason
    if any(part.proj_size for part in lstms):
        return "its LSTM projects its state (proj_size)"
    table = (embedding[0].num_embeddings, embedding[0].embedding_dim) if embedding else None
    for config in plain.configs(
        table,
        lstms[0].input_size,
        sum(part.num_layers for part in lstms),
        lstms[0].hidden_size,
        bidirectional=lstms[0].bidirectional,
        outputs=linear[0].out_features,
    ):
        try:
            network = TorchLSTM(config)
            network.load_canonical(_canonical(config, lstms, linear[0], embedding))
        except ValueError:
            continue
        for batch_first in {part.batch_first for part in lstms}:
            if _same(module, network, config, batch_first):
                weights = network.canonical_weights()
                checkpoint = Checkpoint(config=config, weights=weights, framework="torch", training=dict(described))
                return checkpoint if _free(inputs, config) else "--input fixes a size, or has another datatype or rank"
    return plain.ANSWERS_DIFFERENTLY


def _free(inputs: Mapping[str, Stated], config: LSTMConfig) -> bool:
    """Whether the one input is declared as the canonical network takes it, every size free but that of the features."""
    ((_, declared),) = inputs.items()
    return declared in (
        [("INT64", (-1, -1))]
        if config.input == "tokens"
        else [("FP32", (-1, -1, size)) for size in (config.features, -1)]
    )


def _canonical(
    config: LSTMConfig, lstms: Sequence[nn.LSTM], linear: nn.Linear, embedding: Sequence[nn.Embedding]
) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of the parts in the layout of `models.checkpoint`. Scaling is none: the module has its own, or none."""

    def array(tensor: Tensor | None, *shape: int) -> npt.NDArray[np.float32]:
        return np.zeros(shape, np.float32) if tensor is None else tensor.detach().numpy().astype(np.float32)

    weights = {"head.weight": array(linear.weight), "head.bias": array(linear.bias, config.outputs)}
    weights |= no_scaling(config)
    if embedding:
        weights["embedding"] = array(embedding[0].weight)
    inner = [(lstm, layer) for lstm in lstms for layer in range(lstm.num_layers)]
    for number, (lstm, layer) in enumerate(inner):
        for direction, suffix in zip(DIRECTIONS[: config.directions], ("", "_reverse"), strict=False):
            for part, kind in itertools.product(("weight", "bias"), ("input", "hidden")):
                tensor = getattr(lstm, f"{part}_{kind[0]}h_l{layer}{suffix}", None)
                weights[f"lstm.{number}.{direction}.{part}_{kind}"] = array(tensor, 4 * config.hidden)
    return weights


def _same(module: nn.Module, network: TorchLSTM, config: LSTMConfig, batch_first: bool) -> bool:
    """Whether the module answers as the canonical network does, for several numbers of rows and steps."""
    for x in plain.usual_and_unusual(config):
        expected = network.predict({"x": x})["y"]
        given = torch.tensor(x if batch_first else np.ascontiguousarray(np.moveaxis(x, 0, 1)))
        try:
            with torch.inference_mode():
                got = next(iter(flat(module(given)))).numpy()
        except Exception:  # noqa: BLE001 - a module that does not run so is none of these
            return False
        if not batch_first and config.head == "values_per_step":
            got = np.moveaxis(got, 0, 1) if got.ndim == 3 else got
        if golden.disagreement(got, expected) > plain.SAME:
            return False
    return True


def flat(answer: Any) -> Iterator[Tensor]:
    """The tensors of what a module returns. Raises `ExportError` for what is neither a tensor nor a tuple of such."""
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, Mapping):
        raise ExportError("the module returns a dict; let it return a tensor or a tuple of tensors")
    elif isinstance(answer, (tuple, list)):
        for part in answer:
            yield from flat(part)
    else:
        raise ExportError(f"the module returns a {type(answer).__name__}; it must return tensors, alone or in tuples")
