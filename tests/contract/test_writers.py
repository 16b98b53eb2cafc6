"""Every export format against the equations and against both frameworks, over all that an `LSTMConfig` can say."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from export import formats, proof, trials
from models import networks
from models.checkpoint import Checkpoint
from models.config import LSTMConfig
from serving import backends
from serving.backends.base import Backend, Options
from serving.errors import RepositoryError
from serving.golden import check_agreement
from tests import oracle
from tests.contract import artefacts

NAMES = ("y", "hn", "cn")
BATCHES: tuple[dict[str, Any], ...] = (
    {"rows": 1, "steps": 1},
    {"rows": 7, "steps": 9, "full": True},
    {"rows": 9, "steps": 12, "state": False},
)

every_format = pytest.mark.parametrize("form", formats.names())
every_config = pytest.mark.parametrize("config", artefacts.CONFIGS, ids=artefacts.described)


@functools.cache
def case(config: LSTMConfig) -> list[tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]]:
    """Batches and what the equations make of them."""
    batches = [artefacts.batch(config, **batch) for batch in BATCHES]
    return [(inputs, oracle.predict(config, artefacts.weights(config), inputs)) for inputs in batches]


def load(form: str, config: LSTMConfig, folder: Path) -> Backend:
    weights, writer = artefacts.weights(config), formats.writer(form)
    module = backends.module(writer.BACKEND)
    writer.write(config, weights, folder / module.FILE_NAME)
    return module.load(folder / module.FILE_NAME, artefacts.spec(config, weights), "cpu", Options())


@every_config
@every_format
def test_agrees_with_the_equations(form: str, config: LSTMConfig, tmp_path: Path) -> None:
    backend = load(form, config, tmp_path)
    for inputs, expected in case(config):
        got = backend.run(inputs, NAMES)
        check_agreement(form, got, expected, 1e-6)
        if config.head == "values_per_step":
            behind = np.arange(inputs["x"].shape[1]) >= inputs["lengths"][:, None]
            assert (got["y"][behind] == 0).all()
    backend.close()


@every_config
def test_the_torch_network_agrees_with_the_equations(config: LSTMConfig) -> None:
    network = networks.build("torch", config)
    network.load_canonical(artefacts.weights(config))
    for inputs, expected in case(config):
        check_agreement("torch", network.predict(inputs), expected, 1e-6)


@pytest.mark.parametrize("framework", networks.FRAMEWORKS)
@pytest.mark.parametrize(
    "config",
    [config for config in artefacts.CONFIGS if (config.layers, config.bidirectional) in ((1, False), (2, True))][::2],
    ids=artefacts.described,
)
def test_every_format_is_proven_against_the_framework_that_trained(
    framework: str, config: LSTMConfig, tmp_path: Path
) -> None:
    weights = artefacts.weights(config)
    checkpoint = Checkpoint(config=config, weights=weights, framework=framework, training={})
    proven = proof.ask(networks.load(checkpoint), trials.make(checkpoint))
    for form in formats.names():
        writer = formats.writer(form)
        artifact = tmp_path / backends.module(writer.BACKEND).FILE_NAME
        writer.write(config, weights, artifact)
        assert proof.check(form, writer.BACKEND, artifact, artefacts.spec(config, weights), proven) < 1e-6


@pytest.mark.parametrize("form", sorted(set(formats.names()) - {"torchscript"}))  # it states no shapes and no dtypes
@pytest.mark.parametrize(
    "other",
    [
        artefacts.TOKENS,
        LSTMConfig(features=4, layers=2, hidden=artefacts.HIDDEN, outputs=4),
        LSTMConfig(features=3, layers=2, hidden=artefacts.HIDDEN, outputs=5),
    ],
    ids=["other dtype", "other features", "other classes"],
)
def test_a_specification_of_another_model_is_refused(form: str, other: LSTMConfig, tmp_path: Path) -> None:
    config, writer = artefacts.FEATURES, formats.writer(form)
    module = backends.module(writer.BACKEND)
    writer.write(config, artefacts.weights(config), tmp_path / module.FILE_NAME)
    spec = artefacts.spec(other, artefacts.weights(other))
    with pytest.raises(RepositoryError, match=r"x|y"):
        module.load(tmp_path / module.FILE_NAME, spec, "cpu", Options())
