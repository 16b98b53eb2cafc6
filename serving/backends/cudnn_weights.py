"""The weights of a recurrent layer in one piece of GPU memory, as cuDNN wants them.

`torch.jit.load` gives every tensor memory of its own, and cuDNN then copies all of them together at every call. In PyTorch
`nn.RNNBase.flatten_parameters` prevents that; a loaded TorchScript module has no such method, so its tensors are shown to one
of a layer that has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

CELLS = ("LSTM", "GRU")


def compact(module: Any) -> None:
    """Moves the weights of each recurrent layer of `module` (a loaded ScriptModule) into one piece, if they are on a GPU.

    The tensors stay what they are, at another address; layers whose weights are found under other names stay as they are.
    """
    for layer in layers(module):
        layer.flatten_parameters()


def layers(module: Any) -> Iterator[Any]:
    """A `torch.nn.LSTM` or `GRU` for each recurrent layer found in `module`; the weights are the tensors of `module` itself."""
    for part in module.modules():
        if part.original_name in CELLS:
            named = dict(part.named_parameters(recurse=False))
            if "weight_ih_l0" in named:
                yield _layer(part.original_name, named)
    if hasattr(module, "layers") and hasattr(module, "lstm") and module.lstm.original_name not in CELLS:
        yield _layer("LSTM", _of_our_files(module))


def _of_our_files(module: Any) -> Mapping[str, Any]:
    """The files of `lstm-export` hold a list of tensors, in the order that `torch.lstm` takes."""
    names = [
        f"{kind}_l{layer}{direction}"
        for layer in range(module.layers)
        for direction in ("", "_reverse")[: module.directions]
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    return dict(zip(names, module.lstm(), strict=True))


def _layer(cell: str, named: Mapping[str, Any]) -> Any:
    from torch import nn

    projected = named.get("weight_hr_l0")
    layer = getattr(nn, cell)(
        named["weight_ih_l0"].shape[1],
        named["weight_hh_l0"].shape[0] // {"LSTM": 4, "GRU": 3}[cell],
        num_layers=len([name for name in named if re.fullmatch(r"weight_ih_l[0-9]+", name)]),
        bias="bias_ih_l0" in named,
        bidirectional="weight_ih_l0_reverse" in named,
        **({} if projected is None else {"proj_size": projected.shape[0]}),
        device="meta",
    )
    layer._flat_weights = [named[name] for name in layer._flat_weights_names]
    return layer
