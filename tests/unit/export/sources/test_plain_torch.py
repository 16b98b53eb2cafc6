"""Which PyTorch modules are plain stacks, and that their weights are taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from export.sources.plain_torch import Parts, Plain, recognise
from export.user_code import torch_part
from export.user_code.asking import Raised
from models import networks
from serving.signature.stated import Stated
from serving.signature.tensors import Tensors
from tests.unit.export import user_networks

X = {"x": ("FP32", (-1, -1, 8))}


def recognised(module: nn.Module, inputs: Mapping[str, Stated], described: Mapping[str, Any]) -> Plain | str:
    """What is recognised of a module that is asked as the child's is."""
    network = torch_part.Network(module, "theirs", None)

    def run(sent: Tensors) -> list[npt.NDArray[Any]]:
        try:
            return list(network.run({"inputs": list(inputs)}, sent)[1].values())
        except Exception as error:
            raise Raised(f"{type(error).__name__}: {error}", {}) from error

    described_parts, weights = network.parts({}, {})
    return recognise(Parts(weights, **described_parts), run, inputs, described)


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
    found = recognised(module(), inputs, {"module": "theirs"})
    assert isinstance(found, Plain)
    checkpoint = found.checkpoint
    assert checkpoint.config.told() == told
    assert (checkpoint.framework, checkpoint.training) == ("torch", {"module": "theirs"})
    assert found.rows_first is (module is not user_networks.TimeFirst)


def test_the_checkpoint_answers_as_the_module_does() -> None:
    module = user_networks.Plain()
    found = recognised(module, X, {})
    assert isinstance(found, Plain)
    x = np.random.default_rng(0).normal(size=(3, 11, 8)).astype(np.float32)
    np.testing.assert_allclose(
        networks.load(found.checkpoint).predict({"x": x})["y"], module(torch.tensor(x)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("module", "inputs", "why"),
    [
        (user_networks.Rectified, X, "it has a ReLU beside LSTM and linear layers"),
        (user_networks.Attention, X, "linear layers 2"),
        (user_networks.Unequal, X, "12 and 16 wide"),
        (user_networks.Looks, X, "computes something else than a plain stack of its parts"),
        (user_networks.LongOtherwise, X, "computes something else"),
        (
            user_networks.Short,
            X,
            "it does not run on [1, 400, 8] (rows, steps, ...) as a plain stack would: ValueError: 400 steps are",
        ),
        (user_networks.LooksForPadding, X, "computes something else"),
        (user_networks.CutToTheLongest, X, "computes something else"),
        (user_networks.WithoutNaN, X, "computes something else"),
        (user_networks.LooksForTokens, {"ids": ("INT64", (-1, -1))}, "computes something else"),
        (user_networks.BranchOnTheFirstRow, X, "computes something else"),
        (user_networks.Plain, {"x": ("FP32", (-1, 24, 8))}, "--input fixes a size"),
        (user_networks.Plain, {"x": ("FP64", (-1, -1, 8))}, "or has another datatype"),
    ],
)
def test_why_a_module_is_none(
    module: type[nn.Module], inputs: dict[str, tuple[str, tuple[int, ...]]], why: str
) -> None:
    found = recognised(module(), inputs, {})
    assert isinstance(found, str)
    assert why in found
