"""Run in the client's own environment, where nothing of ours can be imported: python triton_control.py ADDRESS FOLDER.

Loads, overrides and unloads the model `fake` of a server in explicit mode, as Triton's users do. FOLDER holds a whole version
to be sent. The model can be served by two backends, and a broken one lies beside it.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

address, folder = sys.argv[1:]
client = grpcclient.InferenceServerClient(address)
sent = {f"file:7/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}


def index():
    return {(m.name, m.version): (m.state, m.reason) for m in client.get_model_repository_index().models}


def answer(version=""):
    x = grpcclient.InferInput("x", [1, 2, 3], "FP32")
    x.set_data_from_numpy(np.ones((1, 2, 3), np.float32))
    result = client.infer("fake", [x], model_version=version)
    assert result.as_numpy("y").tolist() == [[6, 6]]
    return result.get_response().model_version


def backend():
    return client.get_model_config("fake").config.backend


def refused(status, part, call, *arguments, **more):
    try:
        call(*arguments, **more)
    except InferenceServerException as error:
        told = error
    else:
        raise AssertionError(f"{part}: it was not refused")
    assert told.status() == f"StatusCode.{status}", told
    assert part in told.message(), told


assert client.is_server_ready()
assert index() == {("broken", ""): ("", ""), ("fake", ""): ("", "")}, index()
assert not client.is_model_ready("fake")
client.load_model("fake")
assert client.is_model_ready("fake")
assert client.is_model_ready("fake", "1")
assert index()["fake", "1"] == ("READY", "")
assert (answer(), backend()) == ("1", "fake")

client.load_model("fake", config=json.dumps({"backend": "onnxruntime", "instance_group": [{"count": 2}]}))
assert (answer(), backend()) == ("1", "onnxruntime")
assert client.get_model_metadata("fake").platform == "onnxruntime_onnx"
shown = client.get_model_config("fake", as_json=True)["config"]
assert shown["instance_group"][0]["count"] == 2
client.load_model("fake", config=json.dumps(shown))
assert client.get_model_config("fake", as_json=True)["config"] == shown

client.load_model("fake", config="{}", files=sent)
assert (answer(), backend()) == ("7", "fake")
onnx_alone = {name: content for name, content in sent.items() if not name.endswith(".json") or "spec" in name}
client.load_model("fake", config='{"backend": "onnxruntime"}', files=onnx_alone)
assert (answer(), backend()) == ("7", "onnxruntime")
damaged = {"config": '{"backend": "onnxruntime"}', "files": {"file:7/model.onnx": b"x"}}
refused("INVALID_ARGUMENT", "cannot be read by ONNX Runtime", client.load_model, "fake", **damaged)
refused(
    "INVALID_ARGUMENT", "the version has no model.fake.json", client.load_model, "fake", **damaged | {"config": "{}"}
)
assert (answer(), backend()) == ("7", "onnxruntime")
client.load_model("fake")
assert (answer(), backend()) == ("1", "fake")

refused("INTERNAL", "failed to load 'nobody', failed to poll from model repository", client.load_model, "nobody")
refused("INVALID_ARGUMENT", "load failed for model 'broken': ", client.load_model, "broken")
refused("INVALID_ARGUMENT", "does not parse", client.load_model, "fake", config="{")
refused(
    "INVALID_ARGUMENT", "stay within the version", client.load_model, "fake", config="{}", files={"file:1/../a": b""}
)
for name in ("", "../fake"):
    refused("INVALID_ARGUMENT", "a model cannot be called", client.load_model, name)
    refused("INVALID_ARGUMENT", "a model cannot be called", client.unload_model, name)
assert answer() == "1"

client.unload_model("broken")
client.unload_model("nobody")
client.unload_model("fake", unload_dependents=True)
assert not client.is_model_ready("fake")
until = time.monotonic() + 30
while index()["fake", "1"] != ("UNAVAILABLE", "unloaded"):
    assert time.monotonic() < until, index()
refused("NOT_FOUND", "'fake' has no available versions", answer)
refused("INVALID_ARGUMENT", "requested model 'fake' is not available", client.get_inference_statistics, "fake")
assert client.is_server_ready()
client.close()
