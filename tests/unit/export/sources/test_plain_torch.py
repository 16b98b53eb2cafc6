"""Which PyTorch modules are plain stacks, and that their weights are taken over."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from export.errors import ExportError
from export.sources.plain_torch import flat, recognise
from models import networks
from models.checkpoint import Checkpoint
from tests.unit.export import user_networks

X = {"x": ("FP32", (-1, -1, 8))}


def ready(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("module", "inputs", "told"),
    [
        (user_networks.Plain, X, "LSTM of 2 x 16 in one direction, values"),
        (user_networks.Classifier, X, "LSTM of 2 x 16 in one direction, classification"),
        (user_networks.TimeFirst, X, "LSTM of 2 x 16 in one direction, values per step"),
        (user_networks.Tagger, {"ids": ("INT64", (-1, -1))}, "LSTM of 1 x 16 in both directions, values per step"),
    ],
)
def test_a_plain_stack_becomes_a_checkpoint(
    module: type[nn.Module], inputs: dict[str, tuple[str, tuple[int, ...]]], told: str
) -> None:
    found = recognise(ready(module()), inputs, {"module": "theirs"})
    assert isinstance(found, Checkpoint)
    assert found.config.told() == told
    assert (found.framework, found.training) == ("torch", {"module": "theirs"})


def test_the_checkpoint_answers_as_the_module_does() -> None:
    module = ready(user_networks.Plain())
    found = recognise(module, X, {})
    assert isinstance(found, Checkpoint)
    x = np.random.default_rng(0).normal(size=(3, 11, 8)).astype(np.float32)
    np.testing.assert_allclose(networks.load(found).predict({"x": x})["y"], module(torch.tensor(x)), atol=1e-6)


@pytest.mark.parametrize(
    ("module", "inputs", "why"),
    [
        (user_networks.Rectified, X, "it has a ReLU beside LSTM and linear layers"),
        (user_networks.Attention, X, "linear layers 2"),
        (user_networks.Unequal, X, "12 and 16 wide"),
        (user_networks.Looks, X, "computes something else than a plain stack of its parts"),
        (user_networks.LongOtherwise, X, "computes something else"),
        (user_networks.BranchOnTheFirstRow, X, "computes something else"),
        (user_networks.Plain, {"x": ("FP32", (-1, 24, 8))}, "--input fixes a size"),
        (user_networks.Plain, {"x": ("FP64", (-1, -1, 8))}, "or has another datatype"),
    ],
)
def test_why_a_module_is_none(
    module: type[nn.Module], inputs: dict[str, tuple[str, tuple[int, ...]]], why: str
) -> None:
    found = recognise(ready(module()), inputs, {})
    assert isinstance(found, str)
    assert why in found


def test_nested_tuples_are_flattened_and_nothing_else() -> None:
    a, b, c = (torch.tensor(float(number)) for number in range(3))
    assert list(flat((a, [b, (c,)]))) == [a, b, c]
    assert list(flat(a)) == [a]
    for answer, message in (({"y": a}, "returns a dict; let it return a tensor"), ((a, None), "returns a NoneType")):
        with pytest.raises(ExportError, match=message):
            list(flat(answer))
