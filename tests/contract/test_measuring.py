"""Every format of a real model gets figures, and what does not compute the same gets none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving import backends
from serving.loading.measuring import ROWS, measure
from serving.loading.ranking import candidates, ranked
from serving.repository.folders import VersionFolder
from serving.verification import golden
from tests.support import artefacts, oracle


@pytest.mark.parametrize(
    "config",
    [artefacts.FEATURES, pytest.param(artefacts.TOKENS, marks=pytest.mark.slow)],
    ids=artefacts.described,
)
def test_every_format_is_measured(config: artefacts.LSTMConfig, tmp_path: Path) -> None:
    weights = artefacts.weights(config)
    for name in backends.PREFERENCE:
        artefacts.make(name, config, weights, tmp_path)
    (tmp_path / "spec.json").write_text(artefacts.spec(config, weights).to_json())
    inputs = artefacts.batch(config, 3, 6)
    outputs = {name: array.astype(np.float32) for name, array in oracle.predict(config, weights, inputs).items()}
    golden.write_samples(tmp_path / golden.FILE_NAME, [golden.Sample(inputs, outputs)])
    folder = VersionFolder(1, tmp_path)

    asked = candidates(folder.formats(), ["cpu"], None, 2)
    assert len(asked) == 2 * len(backends.PREFERENCE)
    measured = measure(folder, asked)
    assert [(one.failed, list(one.p50_seconds)) for one in measured] == [("", list(ROWS))] * len(asked)
    assert not ranked(measured, "latency")[0].failed

    artefacts.make("torchscript", config, artefacts.weights(config, seed=1), tmp_path)
    by_backend = {one.candidate.backend: one for one in measure(folder, candidates(folder.formats(), ["cpu"], 1, 2))}
    assert [name for name, one in by_backend.items() if one.failed] == ["torchscript"]
    assert "differs from the trained model" in by_backend["torchscript"].failed
