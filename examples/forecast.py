"""The demo's forecasting client, run in the client's own environment: nothing but `tritonclient` and NumPy.

    python examples/forecast.py ADDRESS MODEL DAYS.npz

Feeds a series (`days`, `[days, features]` float32) to a stateful model as it would come in, over one stream and as one
sequence: the first `warm_up` days at once, then one day a message, each when the day before is answered. The server keeps
the state. Prints JSON: `forecasts` after every day, `[days, outputs]`, the same from one request that holds all days
(`whole`), and the number of `messages`.
"""

import json
import queue
import secrets
import sys

import numpy as np
import tritonclient.grpc as grpcclient


def main() -> None:
    address, model, file = sys.argv[1:]
    with np.load(file) as data:
        days, warm_up = data["days"], int(data["warm_up"])
    pieces = np.split(days, range(warm_up, len(days)))
    with grpcclient.InferenceServerClient(address) as client:
        forecasts = streamed(client, model, pieces)
        at_once = client.infer(
            model, [tensor(days)], sequence_id=new_id(), sequence_start=True, sequence_end=True
        ).as_numpy("y")
    json.dump({"forecasts": forecasts, "whole": at_once[0].tolist(), "messages": len(pieces)}, sys.stdout)


def streamed(client: grpcclient.InferenceServerClient, model: str, pieces: list[np.ndarray]) -> list[list[float]]:
    """The forecasts after each day, which come piece by piece."""
    answers: queue.Queue = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    sequence, last = new_id(), len(pieces) - 1
    forecasts: list[list[float]] = []
    for number, piece in enumerate(pieces):
        client.async_stream_infer(
            model, [tensor(piece)], sequence_id=sequence, sequence_start=number == 0, sequence_end=number == last
        )
        result, error = answers.get()
        if error:
            raise error
        forecasts += result.as_numpy("y")[0].tolist()
    client.stop_stream()
    return forecasts


def new_id() -> int:
    """A number that nobody else has."""
    return secrets.randbits(62) + 1


def tensor(days: np.ndarray) -> grpcclient.InferInput:
    made = grpcclient.InferInput("x", [1, *days.shape], "FP32")
    made.set_data_from_numpy(days[np.newaxis])
    return made


if __name__ == "__main__":
    main()
