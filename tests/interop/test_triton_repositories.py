"""Repositories of Triton's users, asked by the unmodified client."""

from __future__ import annotations

import subprocess
from pathlib import Path

from serving.launch import LaunchedServer
from tests.support import graphs

PROGRAM = """
import sys
import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

client = grpcclient.InferenceServerClient(sys.argv[1])
assert client.get_server_metadata().name == "triton"
texts = np.array([["yes", "é"], ["", "no"]], dtype=object)
sent = grpcclient.InferInput("INPUT0", texts.shape, "BYTES")
sent.set_data_from_numpy(texts)
answer = client.infer("strings", [sent])
assert [[text.decode() for text in row] for row in answer.as_numpy("SAME")] == texts.tolist()
assert answer.as_numpy("KIND").tolist() == [[1, -1], [-1, 2]]

picture = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
data = grpcclient.InferInput("data_0", picture.shape, "FP32")
data.set_data_from_numpy(picture)
assert client.infer("pictures", [data]).as_numpy("fc6_1").tolist() == [7.5, 23.5, 39.5]
wanted = grpcclient.InferRequestedOutput("fc6_1", class_count=1)
assert client.infer("pictures", [data], outputs=[wanted]).as_numpy("fc6_1").tolist() == [b"39.500000:2:blue"]

for asked, said in (([], "expected 1 inputs but got 0 inputs for model 'strings'. Got input(s) [], but missing required "
                         "input(s) ['INPUT0']. Please provide all required input(s)."),
                    ([sent, data], "unexpected inference input 'data_0' for model 'strings'")):
    try:
        client.infer("strings", asked)
    except InferenceServerException as error:
        assert error.status() == "StatusCode.INVALID_ARGUMENT", error.status()
        assert said in error.message(), error.message()
    else:
        raise AssertionError(said)
client.close()
"""


def test_strings_pictures_and_labels(client_python: str, tmp_path: Path) -> None:
    labels = {"keys_strings": ["yes", "no"], "values_int64s": [1, 2], "default_int64": -1}
    graphs.write(
        tmp_path / "a/strings/1/model.onnx",
        [("Identity", ["INPUT0"], ["SAME"]), ("ml.LabelEncoder", ["INPUT0"], ["KIND"], labels)],
        {"INPUT0": ("BYTES", ["rows", "size"])},
        {"SAME": ("BYTES", ["rows", "size"]), "KIND": ("INT64", ["rows", "size"])},
    )
    (tmp_path / "a/strings/config.pbtxt").write_text(
        'platform: "onnxruntime_onnx" max_batch_size: 8 input { name: "INPUT0" data_type: TYPE_STRING dims: [ -1 ] } '
        'output [ { name: "SAME" data_type: TYPE_STRING dims: -1 }, { name: "KIND" data_type: TYPE_INT64 dims: -1 } ]'
    )
    graphs.write(
        tmp_path / "b/pictures/1/model.onnx",
        [("GlobalAveragePool", ["data_0"], ["fc6_1"])],
        {"data_0": ("FP32", [1, 3, 4, 4])},
        {"fc6_1": ("FP32", [1, 3, 1, 1])},
    )
    (tmp_path / "b/pictures/labels_of_it.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "b/pictures/config.pbtxt").write_text("""
        input { name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, 4, 4] reshape { shape: [1, 3, 4, 4] } }
        output { name: "fc6_1" data_type: TYPE_FP32 dims: 3 reshape { shape: [1, 3, 1, 1] } label_filename: "labels_of_it.txt" }
    """)
    flags = ("--model-repository", str(tmp_path / "b"), "--server-name", "triton")
    with LaunchedServer(tmp_path / "a", *flags) as server:
        done = subprocess.run(
            [client_python, "-c", PROGRAM, server.address], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
