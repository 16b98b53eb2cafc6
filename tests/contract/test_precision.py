"""Weights that are kept smaller: the file computes with their rounded values, as exactly as with any others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from export import formats, precision
from export.errors import ExportError
from export.precision import FP16, FP32, INT8_WEIGHTS, rounded, store
from models.config import LSTMConfig
from serving import backends
from serving.backends.base import Options
from tests.support import agreement, artefacts

SMALLER = (FP16, INT8_WEIGHTS)
WIDE = LSTMConfig(features=8, layers=2, hidden=64, head="values", outputs=1)


@pytest.mark.parametrize("form", formats.names())
@pytest.mark.parametrize(
    ("config", "kind"),
    [
        pytest.param(
            config,
            kind,
            id=f"{artefacts.described(config)}-{kind}",
            marks=[] if kind == SMALLER[number % 2] or config.layers == 2 else pytest.mark.slow,
        )
        for number, config in enumerate(artefacts.CONFIGS)
        for kind in SMALLER
    ],
)
def test_the_file_computes_with_the_rounded_weights(config: LSTMConfig, form: str, kind: str, tmp_path: Path) -> None:
    """Asked what the matrix asks, company and pieces included.

    A matrix is restored by itself, whatever network it stands in: each network has one kind by turns, two layers have both.
    """
    weights = artefacts.weights(config)
    stored = store(weights, kind)
    asked = agreement.question(config, rounded(weights, stored))
    agreement.check_file(form, formats.writer(form), asked, tmp_path, stored)


@pytest.mark.parametrize("form", formats.names())
def test_the_file_is_smaller(form: str, tmp_path: Path) -> None:
    weights = artefacts.weights(WIDE)
    sizes = []
    for kind in precision.PRECISIONS:
        stored = store(weights, kind)
        path = tmp_path / kind
        formats.writer(form).write(WIDE, rounded(weights, stored), path, stored)
        sizes.append(sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()))
    matrices = sum(array.size for array in weights.values() if array.ndim == 2)
    assert sizes[0] - sizes[1] > 1.7 * matrices  # of 4 bytes each, 2 are left
    assert sizes[0] - sizes[2] > 2.6 * matrices  # of 4 bytes each, 1 is left


def test_the_runtime_restores_what_onnx_keeps_when_it_loads(tmp_path: Path) -> None:
    """Folded away: what ONNX Runtime computes with has no node left that restores anything."""
    import onnxruntime

    weights = artefacts.weights(WIDE)
    stored = store(weights, INT8_WEIGHTS)
    formats.writer("onnx").write(WIDE, rounded(weights, stored), tmp_path / "m.onnx", stored)
    written = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert written.count("LSTM") == 2
    assert written.count("Cast") == 6  # one is for the lengths
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    settings.log_severity_level = 4
    onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), settings)
    assert [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node].count("Cast") == 1


@pytest.mark.parametrize("kind", SMALLER)
def test_stock_runtimes_load_it_with_nothing_of_ours_near(kind: str, tmp_path: Path) -> None:
    config = artefacts.FEATURES
    weights = artefacts.weights(config)
    stored = store(weights, kind)
    for form in ("torchscript", "savedmodel"):
        formats.writer(form).write(config, rounded(weights, stored), tmp_path / form, stored)
    inputs = artefacts.batch(config, 3, 6, full=True)
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    program = """
import numpy as np, sys
inputs = dict(np.load("inputs.npz"))
names = ("x", "lengths", "h0", "c0")
import torch
y = torch.jit.load("torchscript")(*(torch.tensor(inputs[name]) for name in names))[0].numpy()
import tensorflow as tf
answer = tf.saved_model.load("savedmodel").signatures["serving_default"]
also = answer(**{name: tf.constant(inputs[name]) for name in names})["y"].numpy()
assert not {"serving", "export", "models", "protos"} & sys.modules.keys()
assert np.abs(y - also).max() < 1e-6, (y, also)
np.save("y.npy", y)
"""
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True, timeout=120, capture_output=True)
    module = backends.module("onnx_runtime")
    formats.writer("onnx").write(config, rounded(weights, stored), tmp_path / module.FILE_NAME, stored)
    backend = module.load(tmp_path / module.FILE_NAME, artefacts.spec(config, weights), "cpu", Options())
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), backend.run(inputs, ["y"])["y"], rtol=0, atol=1e-6)


def test_two_networks_in_one_process_keep_their_own_weights(tmp_path: Path) -> None:
    """What a SavedModel restores is a resource with a name; two of one shape must not share it."""
    import tensorflow as tf

    inputs = artefacts.batch(artefacts.FEATURES, 2, 4, full=True)
    answers = []
    for seed in (0, 1):
        weights = artefacts.weights(artefacts.FEATURES, seed)
        stored = store(weights, FP16)
        formats.writer("savedmodel").write(artefacts.FEATURES, rounded(weights, stored), tmp_path / str(seed), stored)
    loaded = [tf.saved_model.load(str(tmp_path / str(seed))).signatures["serving_default"] for seed in (0, 1, 0)]
    for signature in loaded:
        answers.append(signature(**{name: tf.constant(array) for name, array in inputs.items()})["y"].numpy())
    np.testing.assert_array_equal(answers[0], answers[2])
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_only_matrices_are_kept_smaller() -> None:
    weights = artefacts.weights(artefacts.TOKENS)
    assert store(weights, FP32) == {}
    for kind, dtype in ((FP16, np.float16), (INT8_WEIGHTS, np.int8)):
        stored = store(weights, kind)
        assert {name for name, array in weights.items() if array.ndim == 2} == stored.keys()
        assert {matrix.array.dtype for matrix in stored.values()} == {np.dtype(dtype)}
        restored = rounded(weights, stored)
        for name, array in weights.items():
            assert restored[name].dtype == np.float32
            limit = 0 if array.ndim == 1 else np.abs(array).max() * (2**-11 if kind == FP16 else 1 / 254)
            assert np.abs(restored[name] - array).max() <= limit * 1.0001


def test_rows_of_zeros_stay_zero() -> None:
    weights = {"a": np.array([[0, 0], [1, -2]], np.float32)}
    np.testing.assert_allclose(rounded(weights, store(weights, INT8_WEIGHTS))["a"], weights["a"], atol=0.01)


def test_what_float16_cannot_hold_is_refused() -> None:
    with pytest.raises(ExportError, match=r"head.weight holds 7e\+04, which is beyond float16"):
        store({"head.weight": np.full((1, 2), 7e4, np.float32)}, FP16)
    with pytest.raises(ExportError, match="precision is 'int4'; it must be one of fp32, fp16, int8-weights"):
        store({}, "int4")
