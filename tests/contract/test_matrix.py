"""Every framework through every format, over all that an `LSTMConfig` can say, against the equations.

    pytest tests/contract/test_matrix.py -k torch-onnx-features-2x2-classification

A case is named after its framework, its format, its input, its layers x directions, and its head. Keras learns here
without compiling its step, which would take longer than all the rest of the case.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export import formats
from models import initial, networks, trainer, training
from models.checkpoint import Weights
from models.config import LSTMConfig
from models.examples import Examples, batches
from models.networks import Network
from tests.support import agreement, artefacts
from tests.support.agreement import EQUATIONS, Question
from tests.support.uncompiled import uncompiled

SEED = 11
PLAN = trainer.Plan(learning_rate=0.05, rows=8, seed=SEED)
CASES = 24  # three optimiser steps of 8, which move a weight by at most some 0.05 each
PER_STEP = LSTMConfig(features=3, layers=1, hidden=artefacts.HIDDEN, head="values_per_step", outputs=2)
MOVED = 0.05  # how far something in every array must have moved


def cases(quick: Callable[[LSTMConfig], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Every framework, network and format; those of networks that are not `quick` are slow."""
    return pytest.mark.parametrize(
        ("framework", "config", "form"),
        [
            pytest.param(
                framework,
                config,
                form,
                id=f"{framework}-{form}-{artefacts.described(config)}",
                marks=[] if quick(config) else pytest.mark.slow,
            )
            for framework in networks.FRAMEWORKS
            for config in artefacts.CONFIGS  # the format varies fastest, so that a network is made once for all of them
            for form in formats.names()
        ],
    )


@cases(quick=lambda config: config.layers == 2 and config.bidirectional)
def test_as_initialised(framework: str, config: LSTMConfig, form: str, tmp_path: Path) -> None:
    """The same weights but for zeros and ones among them: `test_trained` has the writers write every network."""
    agreement.check_file(form, formats.writer(form), initialised(framework, config), tmp_path)


@cases()
def test_trained(framework: str, config: LSTMConfig, form: str, tmp_path: Path) -> None:
    agreement.check_file(form, formats.writer(form), trained(framework, config), tmp_path)


@pytest.mark.parametrize("config", artefacts.CONFIGS, ids=artefacts.described)
@pytest.mark.parametrize("framework", networks.FRAMEWORKS)
def test_the_reader(framework: str, config: LSTMConfig) -> None:
    agreement.check_reader(framework, networks.build(framework, config))


@pytest.mark.parametrize(
    "config",
    [
        LSTMConfig(features=8, layers=2, hidden=64, outputs=9),
        dataclasses.replace(artefacts.TOKENS, hidden=64, bidirectional=True, head="values_per_step"),
    ],
    ids=artefacts.described,
)
@pytest.mark.parametrize("form", formats.names())
def test_as_wide_as_the_reference_network(form: str, config: LSTMConfig, tmp_path: Path) -> None:
    """The company that a row has matters where a matrix product is cut into blocks, which 5 hidden units are not."""
    asked = agreement.question(config, artefacts.weights(config))
    agreement.check_file(form, formats.writer(form), asked, tmp_path)


@pytest.mark.parametrize(
    "config",
    [artefacts.FEATURES, PER_STEP, dataclasses.replace(PER_STEP, bidirectional=True)],
    ids=artefacts.described,
)
@pytest.mark.parametrize("form", formats.names())
def test_means_far_from_zero_cost_no_digits(form: str, config: LSTMConfig, tmp_path: Path) -> None:
    """A format may take the mean off after a product, where the mean is small; here it is thousands of scales."""
    asked = agreement.question(config, artefacts.far_from_zero(artefacts.weights(config)))
    agreement.check_file(form, formats.writer(form), asked, tmp_path)


@functools.lru_cache(maxsize=1)
def initialised(framework: str, config: LSTMConfig) -> Question:
    """A network as its framework initialises it."""
    _seed(framework)
    return _asked(framework, networks.build(framework, config))


@functools.lru_cache(maxsize=1)
def trained(framework: str, config: LSTMConfig) -> Question:
    """A network after three steps of its framework's optimiser, with scalings that are far from 0 and 1."""
    generator = np.random.default_rng(SEED)
    batch = artefacts.batch(config, CASES, 6)
    sequences = [x[:length] for x, length in zip(batch["x"], batch["lengths"], strict=True)]
    targets = {
        "classification": generator.integers(0, config.outputs, CASES),
        "values": generator.normal(size=(CASES, config.outputs)).astype(np.float32),
        "values_per_step": [generator.normal(size=(len(x), config.outputs)).astype(np.float32) for x in sequences],
    }
    scales = {name: array for name, array in artefacts.weights(config).items() if name.endswith((".mean", ".scale"))}
    taught = training.start(framework, config, scales, PLAN)
    with uncompiled(framework):
        for part in batches(Examples(sequences, targets[config.head]), PLAN.rows, generator):
            taught.step(part)
    _must_have_moved(taught.network.canonical_weights(), initial.draw(config, SEED))
    return _asked(framework, taught.network)


def _asked(framework: str, network: Network) -> Question:
    """The question that the files of a network are asked: they are held to the equations and to the network."""
    name = f"the {framework} network"
    asked = agreement.question(network.config, network.canonical_weights(), (name, network.predict))
    agreement.agree(f"{name} and {EQUATIONS}", asked.references[name], asked.references[EQUATIONS])
    return asked


def _must_have_moved(weights: Weights, start: Weights) -> None:
    """The biases of a layer are compared as their sum, which is all that Keras keeps of the two."""
    for name in start:
        if name.endswith("bias_hidden"):
            continue
        other = name.replace("bias_input", "bias_hidden")
        before, after = ((w[name] + w[other]) if other != name else w[name] for w in (start, weights))
        assert np.abs(after - before).max() > MOVED, f"{name} has not learnt"


def _seed(framework: str) -> None:
    """Seeds what the framework draws its first weights from."""
    if framework == "torch":
        import torch

        torch.manual_seed(SEED)
    else:
        import keras

        keras.utils.set_random_seed(SEED)
