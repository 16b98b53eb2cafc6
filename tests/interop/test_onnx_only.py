"""A server in an environment with `lstm-serving[onnx]` alone: neither torch nor TensorFlow is installed there."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from models.checkpoint import Checkpoint
from serving.errors import StartupError
from serving.launch import LaunchedServer
from tests.support.trained import MODELS, Trained
from tests.support.wire import RawClient, pb


def test_it_serves_onnx_models(vowels: Trained, onnx_only_python: str) -> None:
    find = "import importlib.util as u; print([n for n in ('torch', 'tensorflow', 'keras', 'onnx') if u.find_spec(n)])"
    assert subprocess.run([onnx_only_python, "-c", find], capture_output=True, text=True, check=True).stdout == "[]\n"
    with LaunchedServer(vowels.repository, python=onnx_only_python) as server, RawClient(server.address) as client:
        loaded = [entry for entry in server.log() if entry["message"] == "loaded"]
        assert {(entry["model"], entry["backend"]) for entry in loaded} == {(model, "onnx_runtime") for model in MODELS}
        sample = Checkpoint.load(vowels.runs["vowels_torch"]).samples[0][np.newaxis]
        request = pb.ModelInferRequest(model_name="vowels_torch", raw_input_contents=[sample.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=sample.shape)
        answer = client.method("ModelInfer")(request)
        assert np.frombuffer(answer.raw_output_contents[0], np.float32).sum() == pytest.approx(1, abs=1e-5)
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--backend", "torchscript"), r"the package torch is not installed: pip install 'lstm-serving\[torch\]'"),
        (
            ("--backend", "saved_model"),
            r"the package tensorflow is not installed: pip install 'lstm-serving\[tensorflow\]'",
        ),
        (
            ("--device", "cuda:0"),
            r"can run here. onnx_runtime.* on cuda:0: (cuda:0 needs an NVIDIA driver|.*built for CPUs)",
        ),
    ],
)
def test_it_says_what_is_missing(vowels: Trained, onnx_only_python: str, flags: tuple[str, ...], said: str) -> None:
    with pytest.raises(StartupError, match=said):
        LaunchedServer(vowels.repository, *flags, python=onnx_only_python)


def test_device_auto_takes_what_is_there(vowels: Trained, onnx_only_python: str) -> None:
    with LaunchedServer(vowels.repository, "--device", "auto", python=onnx_only_python) as server:
        assert server.wait_for("loaded", 1)["device"] == "cpu"
