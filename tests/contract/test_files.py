"""What each written file promises to others: the stock runtimes load it, with nothing of ours near."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from export import formats
from export.writers import onnx_writer
from export.writers.onnx_graph import IR_VERSION, OPSET
from models.config import LSTMConfig
from serving import backends
from serving.backends.base import Options
from serving.errors import RepositoryError
from serving.signature.tensors import TensorSpec
from tests.support import artefacts, oracle

CONFIG = artefacts.FEATURES
WEIGHTS = artefacts.weights(CONFIG)


def written(form: str, folder: Path, config: LSTMConfig = CONFIG) -> Path:
    writer = formats.writer(form)
    path = folder / backends.module(writer.BACKEND).FILE_NAME
    writer.write(config, artefacts.weights(config), path)
    return path


@pytest.mark.parametrize("far", [False, True], ids=["means near 0", "means far from 0"])
@pytest.mark.parametrize("config", artefacts.CONFIGS, ids=artefacts.described)
def test_onnx_is_one_lstm_a_layer_and_little_around(config: LSTMConfig, far: bool, tmp_path: Path) -> None:
    weights = artefacts.weights(config)
    if far and config.input == "features":
        weights = artefacts.far_from_zero(weights)
    onnx_writer.write(config, weights, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == IR_VERSION == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("LSTM") == config.layers
    assert operators.count("Sub") == (far and config.input == "features")
    assert len(operators) - config.layers <= 3 * config.layers + 12


@pytest.mark.parametrize("bidirectional", [False, True])
def test_onnx_loses_no_digits_to_a_large_bias(bidirectional: bool, tmp_path: Path) -> None:
    """Values about 100,000 that differ by some units: the bias is added when all the rest has been summed up."""
    config = dataclasses.replace(artefacts.TOKENS, hidden=64, bidirectional=bidirectional, head="values_per_step")
    weights = dict(artefacts.weights(config))
    weights |= {"output.mean": np.full(4, 1e5, np.float32), "output.scale": np.ones(4, np.float32)}
    inputs = artefacts.batch(config, 16, 40)
    onnx_writer.write(config, weights, tmp_path / "model.onnx")
    backend = backends.module("onnx_runtime").load(
        tmp_path / "model.onnx", artefacts.spec(config, weights), "cpu", Options()
    )
    rounding = np.spacing(np.float32(1e5))
    expected = oracle.predict(config, weights, inputs)["y"]
    np.testing.assert_allclose(backend.run(inputs, ["y"])["y"], expected, rtol=0, atol=float(1.2 * rounding))


def test_onnx_axes_are_named(tmp_path: Path) -> None:
    model = onnx.load(written("onnx", tmp_path))
    axes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    state = ["rows", CONFIG.layers, CONFIG.hidden]
    assert axes == {
        **{"x": ["rows", "steps", 3], "lengths": ["rows"], "y": ["rows", 4]},
        **dict.fromkeys(("h0", "c0", "hn", "cn"), state),
    }


def test_torchscript_runs_without_our_code(tmp_path: Path) -> None:
    path = written("torchscript", tmp_path)
    inputs = artefacts.batch(CONFIG, 3, 6)
    np.savez(tmp_path / "inputs.npz", **inputs)  # type: ignore[arg-type]
    program = """
import pathlib, sys
ours = ("serving", "export", "models", "protos")
sys.path = [entry for entry in sys.path if not any((pathlib.Path(entry) / name).is_dir() for name in ours)]
import numpy as np, torch
loaded = np.load("inputs.npz")
outputs = torch.jit.load("model.pt")(*(torch.tensor(loaded[name]) for name in ("x", "lengths", "h0", "c0")))
np.savez("outputs.npz", **{name: tensor.numpy() for name, tensor in zip(("y", "hn", "cn"), outputs)})
assert not set(ours) & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-I", "-c", program], cwd=path.parent, check=True, timeout=120)
    with np.load(tmp_path / "outputs.npz") as outputs:
        for name, expected in oracle.predict(CONFIG, WEIGHTS, inputs).items():
            np.testing.assert_allclose(outputs[name], expected, rtol=0, atol=1e-6)


def test_torchscript_refuses_other_arguments(tmp_path: Path) -> None:
    path, spec = written("torchscript", tmp_path), artefacts.spec(CONFIG, WEIGHTS)
    more = (*spec.inputs, TensorSpec("extra", "FP32", (-1,)))
    with pytest.raises(RepositoryError, match="forward takes x, lengths, h0, c0"):
        backends.module("torchscript").load(path, dataclasses.replace(spec, inputs=more), "cpu", Options())
    fewer = dataclasses.replace(spec, outputs=spec.outputs[:2], state=spec.state[:1])
    with pytest.raises(RepositoryError, match="returns 3 outputs"):
        backends.module("torchscript").load(path, fewer, "cpu", Options())


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "in another order"])
def test_torchscript_takes_the_names_of_tritons_convention(turned: bool, tmp_path: Path) -> None:
    """A name says which argument or answer it is, in whatever order the operator has written them."""
    path, spec = written("torchscript", tmp_path), artefacts.spec(CONFIG, WEIGHTS)
    sides = {
        side: tuple(dataclasses.replace(one, name=f"{side}__{i}") for i, one in enumerate(getattr(spec, side)))
        for side in ("inputs", "outputs")
    }
    written_down = {side: tensors[::-1] if turned else tensors for side, tensors in sides.items()}
    bare = dataclasses.replace(spec, lengths=None, state=(), **written_down)  # type: ignore[arg-type]
    backend = backends.module("torchscript").load(path, bare, "cpu", Options())
    inputs = artefacts.batch(CONFIG, 3, 6)
    expected = oracle.predict(CONFIG, WEIGHTS, inputs)
    sent = {f"inputs__{i}": inputs[tensor.name] for i, tensor in enumerate(spec.inputs)}
    got = backend.run(sent, [f"outputs__{i}" for i in range(len(spec.outputs))])
    for place, tensor in enumerate(spec.outputs):
        np.testing.assert_allclose(got[f"outputs__{place}"], expected[tensor.name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("config", [CONFIG, artefacts.TOKENS], ids=artefacts.described)
def test_savedmodel_serves_through_its_own_signature(config: LSTMConfig, tmp_path: Path) -> None:
    import tensorflow as tf

    signature = tf.saved_model.load(str(written("savedmodel", tmp_path, config))).signatures["serving_default"]
    spec = artefacts.spec(config, artefacts.weights(config))
    taken = signature.structured_input_signature[1]
    assert {name: _described(tensor) for name, tensor in taken.items()} == _wanted(spec.inputs)
    assert {name: _described(tensor) for name, tensor in signature.structured_outputs.items()} == _wanted(spec.outputs)
    inputs = artefacts.batch(config, 3, 6)
    got = signature(**{name: tf.constant(array) for name, array in inputs.items()})
    for name, expected in oracle.predict(config, artefacts.weights(config), inputs).items():
        np.testing.assert_allclose(got[name].numpy(), expected, rtol=0, atol=1e-6)


def _described(tensor: Any) -> tuple[str, tuple[int, ...]]:
    return tensor.dtype.name, tuple(-1 if size is None else size for size in tensor.shape)


def _wanted(tensors: tuple[TensorSpec, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {tensor.name: (tensor.dtype.name, tensor.shape) for tensor in tensors}
