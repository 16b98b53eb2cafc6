"""Run in the client's own environment, where nothing of ours can be imported: python predict.py ADDRESS REPOSITORY.

Asks every model of the repository for its own golden samples, and fails where an answer is not the trained model's.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as grpcclient

address, repository = sys.argv[1:]
client = grpcclient.InferenceServerClient(address)
for folder in sorted(file.parent for file in Path(repository).glob("*/*/golden.npz")):
    model, version = folder.parts[-2:]
    tolerance = json.loads((folder / "spec.json").read_text())["tolerance"]
    arrays = np.load(folder / "golden.npz")
    for sample in sorted({name.split("/")[0] for name in arrays.files}):
        given = {name.split("/")[2]: arrays[name] for name in arrays.files if name.startswith(f"{sample}/in/")}
        wanted = {name.split("/")[2]: arrays[name] for name in arrays.files if name.startswith(f"{sample}/out/")}
        inputs = []
        for name, array in given.items():
            inputs.append(
                grpcclient.InferInput(name, array.shape, {"float32": "FP32", "int64": "INT64"}[array.dtype.name])
            )
            inputs[-1].set_data_from_numpy(array)
        answer = client.infer(
            model, inputs, version, outputs=[grpcclient.InferRequestedOutput(name) for name in wanted]
        )
        for name, array in wanted.items():
            got = answer.as_numpy(name)
            assert got.shape == array.shape, f"{model}/{version}: {name} is {got.shape} instead of {array.shape}"
            difference = float(np.max(np.abs(got - array) / np.maximum(1, np.abs(array))))
            assert difference <= tolerance, f"{model}/{version}: {name} is off by {difference}"
    print(f"{model}/{version} answers as the trained model does")
client.close()
