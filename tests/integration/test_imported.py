"""Files that others made: bare ones, as torch and Keras write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serving import backends
from serving.launch import LaunchedServer
from serving.signature.spec import ModelSpec
from serving.verification import golden
from tests.support import commands
from tests.support.arrays import infer, session
from tests.support.wire import RawClient


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of bare files as runtimes write them: a torch LSTM in ONNX and TorchScript, a Keras LSTM as SavedModel."""
    import warnings

    import keras
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(8, 16, batch_first=True)
            self.head = torch.nn.Linear(16, 3)

        def forward(self, x: torch.Tensor, h0: torch.Tensor, c0: torch.Tensor) -> tuple[torch.Tensor, ...]:
            steps, (hn, cn) = self.lstm(x, (h0, c0))
            return self.head(steps), hn, cn

    repository = tmp_path_factory.mktemp("plain")
    network = Network()
    example = (torch.zeros(2, 5, 8), torch.zeros(1, 2, 16), torch.zeros(1, 2, 16))
    axes = {"x": [0, 1], "y": [0, 1], "h0": [1], "c0": [1], "hn": [1], "cn": [1]}
    for model in ("torch_onnx", "torch_script", "keras_saved"):
        (repository / model / "1").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, example, repository / "torch_onnx/1/model.onnx", input_names=["x", "h0", "c0"],
            output_names=["y", "hn", "cn"], dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
        torch.jit.trace(network, example).save(str(repository / "torch_script/1/model.pt"))
        keras_network = keras.Sequential([keras.Input((None, 8)), keras.layers.LSTM(16), keras.layers.Dense(3)])
        keras_network.export(repository / "keras_saved/1/model.savedmodel", verbose=False)
    return repository


def test_nothing_but_the_file(plain: Path) -> None:
    with LaunchedServer(plain) as server, RawClient(server.address) as client:
        index = {entry.name: (entry.state, entry.reason) for entry in client.call("RepositoryIndex").models}
        for model in ("torch_onnx", "keras_saved"):
            assert index[model] == ("READY", "not verified: it has no golden samples")
            assert f'model="{model}",state="READY",verified="false",version="1"}} 1.0' in server.metrics()
        state, reason = index["torch_script"]
        assert state == "UNAVAILABLE"
        assert "states no shapes and no datatypes" in reason
        assert 'input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 8 ] } ]' in reason
        x = np.random.default_rng(0).normal(size=(3, 7, 8)).astype(np.float32)
        h, c = np.ones((3, 1, 16), np.float32), np.zeros((3, 1, 16), np.float32)
        answer = infer(client, "torch_onnx", {"x": x, "h0": h, "c0": c})
        y, hn, _ = session(plain / "torch_onnx/1/model.onnx").run(
            None, {"x": x, "h0": np.moveaxis(h, 0, 1), "c0": np.moveaxis(c, 0, 1)}
        )
        np.testing.assert_array_equal(answer["y"], y)
        np.testing.assert_array_equal(np.moveaxis(answer["hn"], 0, 1), hn)
        (given,) = client.call("ModelMetadata", name="keras_saved").inputs
        (told,) = client.call("ModelMetadata", name="keras_saved").outputs
        assert list(given.shape) == [-1, -1, 8]
        assert infer(client, "keras_saved", {given.name: x})[told.name].shape == (3, 3)


def test_what_is_not_verified_may_be_refused(plain: Path) -> None:
    with LaunchedServer(plain, "--require-verified") as server, RawClient(server.address) as client:
        for entry in client.call("RepositoryIndex").models:
            assert entry.state == "UNAVAILABLE"
            assert "--require-verified is set: bring the file in with lstm-export import" in entry.reason


def test_a_bare_torchscript_file_is_served_once_its_tensors_are_written_down(plain: Path, tmp_path: Path) -> None:
    model = tmp_path / "m"
    (model / "1").mkdir(parents=True)
    (model / "1/model.pt").write_bytes((plain / "torch_script/1/model.pt").read_bytes())
    (model / "config.pbtxt").write_text("""
        input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, -1, 8 ] },
                { name: "h0" data_type: TYPE_FP32 dims: [ 1, -1, 16 ] },
                { name: "c0" data_type: TYPE_FP32 dims: [ 1, -1, 16 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ -1, -1, 3 ] },
                 { name: "hn" data_type: TYPE_FP32 dims: [ 1, -1, 16 ] },
                 { name: "cn" data_type: TYPE_FP32 dims: [ 1, -1, 16 ] } ]
    """)
    with LaunchedServer(tmp_path) as server, RawClient(server.address) as client:
        (entry,) = client.call("RepositoryIndex").models
        assert (entry.state, entry.reason) == ("READY", "not verified: it has no golden samples")
        x, state = np.ones((1, 4, 8), np.float32), np.zeros((1, 1, 16), np.float32)
        answer = infer(client, "m", {"x": x, "h0": state, "c0": state})  # the shapes of the file
        assert answer["y"].shape == (1, 4, 3)
        np.testing.assert_allclose(
            answer["y"], session(plain / "torch_onnx/1/model.onnx").run(["y"], {"x": x, "h0": state, "c0": state})[0],
            rtol=0, atol=1e-6,
        )  # fmt: skip


@pytest.mark.parametrize(("model", "form"), [("torch_onnx", "model.onnx"), ("keras_saved", "model.savedmodel")])
def test_imported_files_are_verified_when_they_load(model: str, form: str, plain: Path, tmp_path: Path) -> None:
    file = plain / model / "1" / form
    done = commands.export("import", file, "--repository", tmp_path, "--name", model, "--nonfinite", "refuse")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / model / "1"
    spec = ModelSpec.read(folder / "spec.json")
    assert (spec.batched, spec.refuses_nonfinite) == (True, True)
    assert spec.source["file"] == form
    assert golden.read_samples(folder / "golden.npz")
    with LaunchedServer(tmp_path, "--require-verified") as server:
        assert server.wait_for("loaded", 1)["verified"] is True


def test_a_file_that_is_none_is_named_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"no model")
    done = commands.export("import", tmp_path / "mine.onnx", "--repository", tmp_path / "r", "--name", "m")
    assert done.returncode == 2
    assert f"{tmp_path / 'mine.onnx'} cannot be read by ONNX Runtime" in done.stderr
    assert ".export-" not in done.stderr
    assert list((tmp_path / "r").iterdir()) == []


def test_a_file_that_quantises_over_the_batch_takes_one_row_at_a_time(tmp_path: Path) -> None:
    """Its scale is that of the largest value of all rows, so company changes answers: that is found, not believed."""
    from onnx import TensorProto, helper, save

    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 8]) for name in ("x", "y")]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "quantised", sides[:1], sides[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "q.onnx")
    done = commands.export("import", tmp_path / "q.onnx", "--repository", tmp_path / "r", "--name", "m")
    assert done.returncode == 0, done.stderr
    assert "one row at a time" in done.stdout
    assert not ModelSpec.read(tmp_path / "r/m/1/spec.json").batched


def test_torchscript_needs_its_tensors_named(plain: Path, tmp_path: Path) -> None:
    file = plain / "torch_script/1/model.pt"
    done = commands.export("import", file, "--repository", tmp_path, "--name", "m")
    assert done.returncode == 2
    assert "--input x:FP32[-1,-1,8]" in done.stderr
    flags = ["--input", "x:FP32[-1,-1,8]", "--input", "h0:FP32[1,-1,16]", "--input", "c0:FP32[1,-1,16]"]
    flags += ["--output", "y:FP32[-1,-1,3]", "--output", "hn:FP32[1,-1,16]", "--output", "cn:FP32[1,-1,16]"]
    done = commands.export("import", file, *flags, "--repository", tmp_path, "--name", "m")
    assert done.returncode == 0, done.stderr
    assert "state, next value in hn" in done.stdout
    backend = backends.module("torchscript")
    assert (tmp_path / "m/1" / backend.FILE_NAME).exists()
