"""Run in the client's own environment, where nothing of ours can be imported: python triton_client.py ADDRESS MODEL IN OUT.

Asks the model for `y`, `hn` and `cn` of the inputs in IN (.npz), and for `y` alone of `x` alone, padded with zeros; writes OUT.
"""

import sys

import numpy as np
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException


def tensor(name: str, array: np.ndarray) -> grpcclient.InferInput:
    made = grpcclient.InferInput(name, array.shape, {"float32": "FP32", "int64": "INT64"}[array.dtype.name])
    made.set_data_from_numpy(array)
    return made


address, model, inputs_file, outputs_file = sys.argv[1:]
with np.load(inputs_file) as file:
    inputs = dict(file)
client = grpcclient.InferenceServerClient(address)
assert all([client.is_server_live(), client.is_server_ready(), client.is_model_ready(model)])
assert not any([client.is_model_ready("nobody"), client.is_model_ready(model, "99")])
assert [t.name for t in client.get_model_metadata(model).inputs] == ["x"]
assert [t.name for t in client.get_model_config(model).config.output] == ["y"]
assert [entry.name for entry in client.get_model_repository_index().models if entry.state == "READY"]
whole = client.infer(
    model,
    [tensor(name, array) for name, array in inputs.items()],
    outputs=[grpcclient.InferRequestedOutput(name) for name in ("cn", "y", "hn")],
    request_id="a request",
)
assert whole.get_response().id == "a request"
assert [output.name for output in whole.get_response().outputs] == ["cn", "y", "hn"]
try:  # without lengths the padding counts as steps, and NaN is no number
    refused = ("", str(client.infer(model, [tensor("x", inputs["x"])])))
except InferenceServerException as error:
    refused = (error.status(), error.message())
assert refused[0] == "StatusCode.INVALID_ARGUMENT", refused
assert f"input 'x' for model '{model}' holds nan in row" in refused[1], refused
plain = client.infer(model, [tensor("x", np.nan_to_num(inputs["x"]))])
assert [output.name for output in plain.get_response().outputs] == ["y"]
np.savez(outputs_file, plain=plain.as_numpy("y"), **{name: whole.as_numpy(name) for name in ("y", "hn", "cn")})
client.close()
