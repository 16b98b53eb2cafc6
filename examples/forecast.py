"""The demo's forecasting client, run in the client's own environment: nothing but `tritonclient` and NumPy.

    python examples/forecast.py ADDRESS MODEL DAYS.npz

Feeds a series (`days`, `[days, features]` float32) to the model as it would come in: the first `warm_up` days at once,
then one day a request. The state travels with the client: `hn` and `cn` of one answer are `h0` and `c0` of the next
request. Prints the forecasts after every day as JSON, `[days, outputs]`.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as grpcclient

STATE = {"h0": "hn", "c0": "cn"}


def main() -> None:
    address, model, file = sys.argv[1:]
    with np.load(file) as data:
        days, warm_up = data["days"], int(data["warm_up"])
    client = grpcclient.InferenceServerClient(address)
    outputs = [grpcclient.InferRequestedOutput(name) for name in ("y", *STATE.values())]
    state: dict[str, np.ndarray] = {}
    forecasts: list[list[float]] = []
    for piece in np.split(days, range(warm_up, len(days))):
        sent = {"x": piece[np.newaxis], **state}
        answer = client.infer(model, [tensor(name, array) for name, array in sent.items()], outputs=outputs)
        forecasts += answer.as_numpy("y")[0].tolist()
        state = {name: answer.as_numpy(output) for name, output in STATE.items()}
    json.dump(forecasts, sys.stdout)


def tensor(name: str, array: np.ndarray) -> grpcclient.InferInput:
    made = grpcclient.InferInput(name, list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return made


if __name__ == "__main__":
    main()
