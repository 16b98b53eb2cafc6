"""Every datatype in every encoding, compression, large messages and classes, by the unmodified client."""

from __future__ import annotations

import subprocess
from pathlib import Path

from serving.launch import LaunchedServer
from serving.signature.tensors import DTYPES
from tests.support import identity_models
from tests.support.trained import Trained


def test_what_goes_in_comes_out(client_python: str, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for datatype in DTYPES:
        backend = "torchscript" if datatype == "BF16" else "onnx_runtime"
        labels = ("cold", "warm") if datatype == "FP32" else ()
        identity_models.write(repository, f"identity_{datatype.lower()}", backend, [datatype], labels)
    identity_models.write(repository, "bytes_in_tensorflow", "saved_model", ["BYTES"])
    with LaunchedServer(repository, "--max-steps", "300000") as server:
        script = Path(__file__).with_name("triton_encodings.py")
        done = subprocess.run([client_python, str(script), server.address], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert 'outcome="failed"} 1' not in server.metrics()


def test_predictions_by_the_names_of_their_classes(vowels: Trained, server: LaunchedServer, client_python: str) -> None:
    """Nine speakers, three of them wanted: the best by probability, named as labels.txt does."""
    program = """
import sys
import numpy as np
import tritonclient.grpc as grpcclient
client = grpcclient.InferenceServerClient(sys.argv[1])
x = grpcclient.InferInput("x", [2, 20, 12], "FP32")
x.set_data_from_numpy(np.random.default_rng(0).normal(size=(2, 20, 12)).astype(np.float32))
y = client.infer("vowels_torch", [x]).as_numpy("y")
best = client.infer("vowels_torch", [x], outputs=[grpcclient.InferRequestedOutput("y", class_count=3)]).as_numpy("y")
labels = open(sys.argv[2]).read().split("\\n")
assert best.shape == (2, 3)
for row, said in zip(y, best):
    order = row.argsort()[::-1][:3]
    assert [s.decode() for s in said] == [f"{row[i]:.6f}:{i}:{labels[i]}" for i in order], said
client.close()
"""
    labels = vowels.repository / "vowels_torch" / "labels.txt"
    done = subprocess.run(
        [client_python, "-c", program, server.address, str(labels)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
