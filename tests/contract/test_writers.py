"""What a writer's file goes through before it is published or served: the proof, and the specification beside it.

Whether it computes what the equations say is `test_matrix.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from export import formats, proof, trials
from models import networks
from models.checkpoint import Checkpoint
from models.config import LSTMConfig
from serving import backends
from serving.backends.base import Options
from serving.errors import RepositoryError
from tests.support import artefacts


@pytest.mark.parametrize("framework", networks.FRAMEWORKS)
@pytest.mark.parametrize("config", [artefacts.FEATURES, artefacts.TOKENS], ids=artefacts.described)
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
