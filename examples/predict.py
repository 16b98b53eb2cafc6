"""The demo's client, run in the client's own environment: nothing but `tritonclient` and NumPy.

    python examples/predict.py ADDRESS MODEL UTTERANCES.npz LABELS.txt

Sends every utterance of the file in its true length (`0`, `1`, ... hold `[steps, features]` float32, `speakers` the
true classes), several at a time so that the server can batch, and prints what came back as JSON.
"""

import json
import sys
from queue import Queue

import numpy as np
import tritonclient.grpc as grpcclient

IN_FLIGHT = 4


def main() -> None:
    address, model, utterances_file, labels_file = sys.argv[1:]
    labels = open(labels_file).read().split("\n")  # noqa: PTH123, SIM115
    with np.load(utterances_file) as data:
        speakers = data["speakers"]
        utterances = [data[str(i)] for i in range(len(speakers))]
    client = grpcclient.InferenceServerClient(address)
    answers: Queue = Queue()
    predicted = [""] * len(utterances)

    def receive() -> None:
        place, result, error = answers.get()
        if error:
            raise SystemExit(f"utterance {place} was refused: {error}")
        predicted[place] = labels[int(result.as_numpy("y")[0].argmax())]

    for place, utterance in enumerate(utterances):
        if place >= IN_FLIGHT:
            receive()
        x = grpcclient.InferInput("x", [1, *utterance.shape], "FP32")
        x.set_data_from_numpy(utterance[np.newaxis])
        client.async_infer(model, [x], lambda result, error, place=place: answers.put((place, result, error)))
    for _ in range(min(IN_FLIGHT, len(utterances))):
        receive()
    json.dump({"predicted": predicted, "true": [labels[i] for i in speakers]}, sys.stdout)


if __name__ == "__main__":
    main()
