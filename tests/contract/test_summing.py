"""The ONNX file of `tests.support.summing` computes what the fake backend does, or tests of swaps would prove nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving.backends import fake, onnx_runtime
from serving.backends.base import Options
from tests.support import fake_models, summing


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (5, 4)])
def test_both_backends_compute_the_same(rows: int, steps: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(rows)
    folder, spec = fake_models.write(tmp_path), fake_models.spec()
    state = (rows, *fake_models.STATE[1:])
    inputs = {
        "x": generator.normal(size=(rows, steps, fake_models.FEATURES)).astype(np.float32),
        "lengths": generator.integers(1, steps + 1, rows),
        "h0": generator.normal(size=state).astype(np.float32),
        "c0": generator.normal(size=state).astype(np.float32),
    }
    names = [tensor.name for tensor in spec.outputs]
    expected = fake.load(folder / fake.FILE_NAME, spec, "cpu", Options()).run(inputs, names)
    got = onnx_runtime.load(summing.write(folder), spec, "cpu", Options()).run(inputs, names)
    for name in names:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=1e-6)
    path = summing.write(folder, factor=3.0, apart=0.5)
    apart = onnx_runtime.load(path, spec, "cpu", Options()).run(inputs, ["y"])["y"]
    np.testing.assert_allclose(apart, 3 * expected["y"] + [0, 0.5], rtol=1e-6, atol=1e-6)
